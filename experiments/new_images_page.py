"""The page on new images, from what `experiments.new_images` measured."""

from typing import Any

INTRODUCTION = """\
# New images

What priors draw on {shown}, measured by a classifier that was trained on the same images for this page alone and is
right on {accuracy:.1%} of {images:,} held-out ones. *Accuracy* is the share of drawn images that it takes for the class
they were asked for. The *Frechet distance* and the *kernel distance* are between its features of {count:,} images and
of {reference:,} training images, *precision* and *recall* between {count:,} of each, with the third nearest. They are
not the FID, KID, precision and recall of papers, which are of another network's features, and compare with this table
alone: held-out images and reconstructions stand beside them for that. Guidance draws what is typical of a class, so
that more images are taken for theirs and fewer of the training images are met (*recall*). The
[glossary](../../glossary.md) has the words.
"""
HEAD = (
    "| images | guidance | accuracy | Frechet distance | kernel distance | precision | recall |\n|---"
    + "|--:" * 6
    + "|"
)


def row(title: str, guidance: str, found: dict[str, Any], best: bool = False) -> str:
    accuracy = f"{found['accuracy']:.1%}" if "accuracy" in found else "–"
    mark = "**" if best else ""
    distances = f"{mark}{found['frechet']:.3g}{mark} | {found['kernel']:.3g}"
    return f"| {title} | {guidance} | {accuracy} | {distances} | {found['precision']:.2f} | {found['recall']:.2f} |"


def describe(name: str, part: dict[str, Any]) -> str:
    tokens = part["grid"][0] * part["grid"][1] * part["stages"]
    gains = {"none": "", "levels": " with gains on levels", "float": " with float gains"}[part["gain"]]
    how = "drawn in passes" if part["in_passes"] else "drawn one after another"
    size, weights = part["codebook_size"], part["weights"] / 1e6
    return f"{name}: {tokens} codes of {size:,}{gains}, {how}, {weights:.1f} million weights"


def page(result: dict[str, Any]) -> str:
    """The text of README.md."""
    about, setting = result["classifier"], result["setting"]
    shown = f"{about['size']}x{about['size']} images of {len(about['classes'])} classes"
    text = INTRODUCTION.format(shown=shown, **(about | setting))
    lines = [text, HEAD, row("held-out images", "–", result["held_out"])]
    for name, part in result["priors"].items():
        lines.append(row(f"{name}: reconstructions of held-out images", "–", part["reconstructions"]))
        found = sorted(part["samples"].items(), key=lambda item: float(item[0]))
        lines += [row(f"{name}: drawn", f"{float(w):g}", row_of, w == part["best"]) for w, row_of in found]
    for name, part in result["priors"].items():
        lines.append(f"\n## {describe(name, part)}\n")
        lines.append(f"Seed {setting['seed']}, guidance {float(part['best']):g}, the first of each class, unpicked:\n")
        lines.append(f"![A row of each class]({name}.png)\n")
        if best := part["samples"][part["best"]].get("by_class"):
            shares = ", ".join(f"{title} {share:.0%}" for title, share in zip(about["classes"], best, strict=True))
            lines.append(f"Accuracy by class: {shares}.\n")
        lines.append(
            f"Each above the training image nearest by features:\n\n![Samples and neighbors]({name}-nearest.png)\n"
        )
        lines.append("Held-out images, what is kept of each, and its continuations:\n")
        lines.append(f"![Upper halves continued]({name}-completed.png)")
    named = " ".join(f"{name}=RUN" for name in result["priors"])
    lines.append(f"\n## How it was made\n\n    python -m experiments.new_images --priors {named} \\")
    lines.append(f"        --classifier runs/classifier --data PATH_OR_HUB_ID --count {setting['count']}\n")
    lines.append(
        f"{setting['passes']} passes of masked priors, temperature {setting['temperature']:g}. {result['machine']}."
    )
    return "\n".join(lines) + "\n"
