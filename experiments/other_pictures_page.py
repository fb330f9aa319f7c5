"""The page of `experiments.other_pictures`. Nothing on it is typed by hand."""

from typing import Any

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
