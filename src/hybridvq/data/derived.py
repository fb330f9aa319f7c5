"""What sets that are made of another set have in common."""

from hybridvq.data.images import Images, fingerprint


class Derived(Images):
    """Images made of those of a set, with its classes, and with a title in their name and fingerprint."""

    def __init__(self, images: Images, title: str) -> None:
        self.images = images
        self.name, self.split, self.size = f"{images.name}, {title}", images.split, images.size
        self.fingerprint = fingerprint([title, images.fingerprint])
        self.skipped, self.workers = images.skipped, images.workers

    @property
    def classes(self) -> tuple[str, ...] | None:
        return self.images.classes
