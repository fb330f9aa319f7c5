"""Photographs through image codecs: bytes, errors and times, at one quality after another."""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image, features

from experiments.headers import avif_payload, jpeg_payload, webp_payload
from hybridvq.data import read_image
from hybridvq.files import image_files
from hybridvq.metrics import psnr_db
from hybridvq.pixels import mse

SIMILARITY_IMAGES = 50  # at least, that MS-SSIM is measured on, which takes longer than the codecs
SMALLEST_SIDE = 176  # MS-SSIM halves the sides four times, and its window of 11 pixels must fit then


@dataclass(frozen=True)
class PhotoCodec:
    """One codec at one setting.

    Attributes:
        encode: pixels (H, W, 3) uint8 to the bytes of a file.
        decode: those bytes to pixels.
        payload: how many of the bytes are not headers.
    """

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]
    payload: Callable[[bytes], int]


def pillow(format: str, payload: Callable[[bytes], int], **options: Any) -> PhotoCodec:
    """A format that Pillow writes and reads."""

    def encode(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format, **options)
        return buffer.getvalue()

    return PhotoCodec(encode, lambda data: np.array(Image.open(io.BytesIO(data)).convert("RGB")), payload)


def jpeg(quality: int, subsampling: str) -> PhotoCodec:
    return pillow("JPEG", jpeg_payload, quality=quality, subsampling=subsampling, optimize=True)


def webp(quality: int) -> PhotoCodec:
    return pillow("WEBP", webp_payload, quality=quality, method=6)


def avif(quality: int) -> PhotoCodec:
    return pillow("AVIF", avif_payload, quality=quality, speed=6, max_threads=1)


def jxl(quality: int) -> PhotoCodec:
    """A bare codestream, whose headers are a few bytes that nothing separates from the rest."""
    import pillow_jxl  # noqa: F401  registers the format

    return pillow("JXL", len, quality=quality, effort=7, num_threads=1, lossless_jpeg=False)


@dataclass(frozen=True)
class Rival:
    """A codec and the qualities that its curve is measured at, from the lowest."""

    name: str
    title: str
    at: Callable[[Any], PhotoCodec]
    qualities: tuple[Any, ...]
    available: bool = True
    model_bytes: int = 0  # what a reader needs once, beside the files


RIVALS = (
    Rival("jpeg-420", "JPEG, 4:2:0", lambda q: jpeg(q, "4:2:0"), (5, 10, 20, 40, 60, 80)),
    Rival("jpeg-444", "JPEG, 4:4:4", lambda q: jpeg(q, "4:4:4"), (5, 10, 20, 40, 60, 80)),
    Rival("webp", "WebP", webp, (0, 5, 20, 40, 60, 80), bool(features.check("webp"))),
    Rival("avif", "AVIF", avif, (15, 30, 40, 50, 60, 70), bool(features.check("avif"))),
    Rival("jxl", "JPEG XL", jxl, (10, 30, 50, 65, 75, 85), find_spec("pillow_jxl") is not None),
)


def read_photographs(folder: str, limit: int | None = None) -> list[np.ndarray]:
    """The images of a folder that are large enough to measure, evenly spread where there are more than `limit`."""
    photographs = [read_image(path) for path in image_files([folder])]
    photographs = [pixels for pixels in photographs if min(pixels.shape[:2]) >= SMALLEST_SIDE]
    if limit is None or limit >= len(photographs):
        return photographs
    return [photographs[i * len(photographs) // limit] for i in range(limit)]


def fingerprint(photographs: Sequence[np.ndarray]) -> str:
    """A hash of the pixels, so that curves of different photographs are not drawn together."""
    digest = sha256()
    for pixels in photographs:
        digest.update(repr(pixels.shape).encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()[:16]


def measure(codec: PhotoCodec, photographs: Sequence[np.ndarray]) -> dict[str, float]:
    """One point of a curve: means over images, but bits and processor seconds over all pixels together.

    MS-SSIM is that of some of them, see `judged`.
    """
    errors, similarity, file_bytes, payload_bytes, encode_s, decode_s = [], [], 0, 0, 0.0, 0.0
    for i, pixels in enumerate(photographs):
        start = time.process_time()
        data = codec.encode(pixels)
        middle = time.process_time()
        decoded = codec.decode(data)
        end = time.process_time()
        encode_s += middle - start
        decode_s += end - middle
        file_bytes += len(data)
        payload_bytes += codec.payload(data)
        errors.append(mse(decoded, pixels))
        if i in judged(len(photographs)):
            similarity.append(ms_ssim(decoded, pixels))
    pixel_count = sum(pixels.shape[0] * pixels.shape[1] for pixels in photographs)
    return {
        "rate_bpp": 8 * file_bytes / pixel_count,
        "payload_rate_bpp": 8 * payload_bytes / pixel_count,
        "psnr_db": float(np.mean([psnr_db(error) for error in errors])),
        "psnr_of_mean_mse_db": psnr_db(float(np.mean(errors))),
        "ms_ssim": float(np.mean(similarity)),
        "encode_megapixels_per_second": pixel_count / encode_s / 1e6,
        "decode_megapixels_per_second": pixel_count / decode_s / 1e6,
    }


def judged(images: int) -> range:
    """The images, by number, that MS-SSIM is measured on: some 50 to 100 of many, evenly spread."""
    return range(0, images, max(1, images // SIMILARITY_IMAGES))


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity (Wang, Simoncelli and Bovik 2003) of RGB pixels, by torchmetrics."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    x, y = (torch.from_numpy(pixels).movedim(-1, 0)[None].contiguous().float() / 255 for pixels in (a, b))
    return float(multiscale_structural_similarity_index_measure(x, y, data_range=1.0))
