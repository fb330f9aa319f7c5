"""Pictures that are not ordinary photographs, through a hybrid model, and through JPEG and WebP at the same bytes.

    python -m experiments.other_pictures --out docs/results/other-pictures
    python -m experiments.other_pictures --out docs/results/other-pictures --photographs FOLDER

Screenshots, a scan, print and a silhouette that come with the documentation and with scikit-image; and, with a folder
of photographs, some of them at four times their size, which stand for large photographs that are smooth. Writes
result.json and README.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage import data

from experiments.other_pictures_page import ENLARGED, QUALITIES, RIVALS, ZOOM
from experiments.pages import write_page
from experiments.photos import read_photographs
from hybridvq import Codec, CodecSettings
from hybridvq.app.compress import rival
from hybridvq.comparison.plan import hardware
from hybridvq.data import read_image
from hybridvq.documents import to_json
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse
from hybridvq.writing import write_whole

SCREENSHOTS = Path(__file__).parents[1] / "docs" / "screenshots"
SAMPLES = {"page": "a scanned page", "text": "handwriting and print", "horse": "a silhouette"}


def main(words: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="photos", help="a hybrid one")
    made.add_argument("--photographs", help="folder of photographs that are enlarged")
    made.add_argument("--out", default="docs/results/other-pictures", help="folder of the result")
    made.add_argument("--page", action="store_true", help="measure nothing, write the page of the result")
    arguments = made.parse_args(words)
    out = Path(arguments.out)
    if not arguments.page:
        codec = Codec.load(arguments.model, "cpu")
        points = [point for name, pixels in pictures(arguments.photographs) for point in measured(codec, name, pixels)]
        about = {"model": arguments.model, "hardware": hardware(), "enlarged": bool(arguments.photographs)}
        write_whole(out / "result.json", to_json(about | {"points": points}))
    write_page(out, "other-pictures")


def pictures(photographs: str | None) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted(SCREENSHOTS.glob("*.png")):
        yield f"screenshot, {path.stem}", read_image(path)
    for name, title in SAMPLES.items():
        gray = getattr(data, name)()
        pixels = np.uint8(255) * gray if gray.dtype == bool else gray
        yield title, np.repeat(pixels[..., None], 3, -1)
    for i, pixels in enumerate(read_photographs(photographs, ENLARGED) if photographs else []):
        image = Image.fromarray(pixels)
        yield (
            f"photograph {i + 1}, enlarged",
            np.array(image.resize((ZOOM * image.width, ZOOM * image.height), Image.Resampling.LANCZOS)),
        )


def measured(codec: Codec, name: str, pixels: np.ndarray) -> Iterator[dict[str, Any]]:
    """One picture (H, W, 3) uint8 at each quality."""
    for quality in QUALITIES:
        own = codec.compress(pixels, CodecSettings(quality=quality))
        point = {"picture": name, "height": pixels.shape[0], "width": pixels.shape[1], "quality": quality}
        shown = {"own": (len(own), np.array(codec.decompress(own).convert("RGB")))}
        for other in RIVALS:
            coded = rival(other, pixels, len(own))
            shown[other] = (len(coded.data), coded.pixels)
        for key, (size, decoded) in shown.items():
            rate_bpp = 8 * size / (pixels.shape[0] * pixels.shape[1])
            point[key] = {"rate_bpp": rate_bpp, "psnr_db": psnr_db(mse(decoded, pixels))}
        print(point, flush=True)
        yield point


if __name__ == "__main__":
    main()
