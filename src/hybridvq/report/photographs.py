"""Whole photographs as the files of trained models show them."""

from pathlib import Path
from typing import Any

from hybridvq.report.pictures import data_uri, psnr_text


def photographs(folder: Path, result: dict[str, Any]) -> list[dict[str, Any]]:
    """The name, the size and the pictures of each photograph of a result, the original first; may be empty."""
    return [
        {key: photograph[key] for key in ("name", "width", "height")}
        | {"pictures": [_original(folder, photograph), *(_picture(folder, file) for file in photograph["files"])]}
        for photograph in result.get("models") or []
    ]


def _original(folder: Path, photograph: dict[str, Any]) -> dict[str, str]:
    return _load(folder, photograph["original"]) | {"title": "Original", "numbers": "24 bits per pixel"}


def _picture(folder: Path, file: dict[str, Any]) -> dict[str, str]:
    numbers = f"{file['bytes']:,} bytes, {file['rate_bpp']:.3f} bits per pixel, {psnr_text(file['psnr_db'])}"
    return _load(folder, file["image"]) | {"title": file["title"], "numbers": numbers}


def _load(folder: Path, name: str) -> dict[str, str]:
    """A PNG as a page holds it, or a sentence in its place."""
    try:
        return {"source": data_uri("png", (folder / name).read_bytes()), "problem": ""}
    except OSError as error:
        return {"source": "", "problem": f"{name} cannot be read ({error.strerror})."}
