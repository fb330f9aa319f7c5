"""What trained models make of whole photographs, which opens the report."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hybridvq.codec import Codec
from hybridvq.codec.rivals import file_near
from hybridvq.comparison.run import save
from hybridvq.data import PHOTOGRAPHS, load_photograph
from hybridvq.devices import Device
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse
from hybridvq.settings import CodecSettings


def show_models(names: Sequence[str], out: Path, device: Device = "auto") -> list[dict[str, Any]]:
    """Held-out sample photographs as each model's file shows them, and JPEG's, at about the same number of bytes.

    Writes the pictures to out/models as PNG; returns, for each photograph, their paths below `out`, bytes, bits per
    pixel and PSNR.

    Raises:
        ModelError, CodecError: a model cannot be loaded, or has no tables for files.
        TrainingError: a picture cannot be written.
    """
    codecs = {name: Codec.load(name, device) for name in names}
    return [show_photograph(name, codecs, out) for name in PHOTOGRAPHS["test"]]


def show_photograph(photograph: str, codecs: Mapping[str, Codec], out: Path) -> dict[str, Any]:
    """One photograph. The largest file of the models that are not hybrid sets the bytes of the others and of JPEG."""
    pixels = load_photograph(photograph)
    area = pixels.shape[0] * pixels.shape[1]
    files = {name: codec.compress(pixels) for name, codec in codecs.items() if not codec.is_hybrid}
    largest = max(map(len, files.values()), default=0)
    settings = CodecSettings(target_bpp=8 * largest / area) if largest else CodecSettings()
    files |= {name: codec.compress(pixels, settings) for name, codec in codecs.items() if codec.is_hybrid}
    shown = [
        (f"{name}, hybrid" if codec.is_hybrid else name, files[name], codec.decompress(files[name]))
        for name, codec in codecs.items()
    ]
    jpeg, quality = file_near("JPEG", pixels, max(map(len, files.values())))
    shown.append((f"JPEG, quality {quality}", jpeg, Image.open(io.BytesIO(jpeg))))

    def written(picture: Image.Image, kind: str) -> str:
        content, path = io.BytesIO(), f"models/{photograph}-{kind}.png"
        picture.save(content, format="PNG")
        save(out / path, content.getbuffer())
        return path

    return {
        "name": photograph,
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "original": written(Image.fromarray(pixels), "original"),
        "files": [
            {
                "title": title,
                "bytes": len(data),
                "rate_bpp": 8 * len(data) / area,
                "psnr_db": psnr_db(mse(pixels, np.asarray(picture.convert("RGB")))),
                "image": written(picture.convert("RGB"), str(number)),
            }
            for number, (title, data, picture) in enumerate(shown)
        ],
    }
