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

from experiments.photos import read_photographs
from hybridvq import Codec, CodecSettings
from hybridvq.app.compress import rival
from hybridvq.comparison.plan import hardware
from hybridvq.data import read_image
from hybridvq.documents import read_json, to_json
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse
from hybridvq.writing import write_whole

SCREENSHOTS = Path(__file__).parents[1] / "docs" / "screenshots"
SAMPLES = {"page": "a scanned page", "text": "handwriting and print", "horse": "a silhouette"}
QUALITIES = (20, 50, 80)
RIVALS = ("JPEG", "WebP")
ENLARGED, ZOOM = 4, 4  # photographs, and how many times their sides

PAGE = """# Pictures that are not ordinary photographs

Bits per pixel of files of `{model}`, by [quality](../../glossary.md#quality), and the PSNR of the decoded picture,
beside JPEG (4:2:0) and WebP at the quality whose file is nearest in size. Their own bits per pixel stand in brackets
where they differ by more than 5%.
It was trained on photographs alone.

| picture | pixels | quality | bits per pixel | PSNR, dB | JPEG | WebP |
|---|--:|--:|--:|--:|--:|--:|
{rows}

Of {count} pictures at {qualities} qualities, `{model}` has the higher PSNR than JPEG {over_jpeg} times and than WebP
{over_webp} times.{enlarged}

    {command}

{machine}; result.json holds every number.
"""

OF_ENLARGED = f"""

Enlarged photographs are {ENLARGED} of a folder, by Lanczos to {ZOOM} times their sides: large and smooth, as an
ordinary photograph of so many pixels that is not sharp."""


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
    write_whole(out / "README.md", page(read_json(out / "result.json")).encode())


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


def page(result: dict[str, Any]) -> str:
    points = result["points"]
    wins = {other: sum(p["own"]["psnr_db"] > p[other]["psnr_db"] for p in points) for other in RIVALS}
    command = "python -m experiments.other_pictures" + (" --photographs FOLDER" if result["enlarged"] else "")
    return PAGE.format(
        model=result["model"],
        rows="\n".join(row(p) for p in points),
        count=len(points) // len(QUALITIES),
        qualities=len(QUALITIES),
        over_jpeg=wins["JPEG"],
        over_webp=wins["WebP"],
        enlarged=OF_ENLARGED if result["enlarged"] else "",
        command=command,
        machine=result["hardware"]["name"],
    )


def row(point: dict[str, Any]) -> str:
    own = point["own"]
    cells = [point["picture"], f"{point['height']} x {point['width']}", point["quality"], f"{own['rate_bpp']:.3f}"]
    cells.append(f"{own['psnr_db']:.2f}")
    for other in RIVALS:
        rate_bpp = point[other]["rate_bpp"]
        differs = abs(rate_bpp / own["rate_bpp"] - 1) > 0.05
        cells.append(f"{point[other]['psnr_db']:.2f}" + (f" ({rate_bpp:.3f})" if differs else ""))
    return "| " + " | ".join(map(str, cells)) + " |"


if __name__ == "__main__":
    main()
