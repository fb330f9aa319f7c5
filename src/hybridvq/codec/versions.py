"""What is asked of a file of either version."""

from hybridvq.codec import format, layered
from hybridvq.codec.format import MAX_PIXELS, Part, version_of

CONTAINERS = {format.VERSION: format, layered.VERSION: layered}


def truncate(data: bytes, stages: int, name: str = "this file") -> bytes:
    """The same file with its first `stages` stages alone; of a hybrid model, with its codes and as many streams of
    coefficients, also none.

    Raises:
        CodecError: as `read`, or the file has fewer.
    """
    return CONTAINERS[version_of(data, name)].truncate(data, stages, name)


def describe(data: bytes, name: str = "this file", max_pixels: int = MAX_PIXELS) -> list[Part]:
    """The parts of a file, in order; their sizes sum to the file's.

    Raises:
        CodecError: as `read`.
    """
    return CONTAINERS[version_of(data, name)].describe(data, name, max_pixels)
