"""Small sets of shards: image i is everywhere i, but for a white left column that shows mirroring."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

SIDE = 4


def encoded(number: int, kind: str = "PNG") -> bytes:
    pixels = np.full((SIDE, SIDE + 2, 3), number, dtype=np.uint8)
    pixels[:, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, lossless=True)
    return buffer.getvalue()


def numbers(x: torch.Tensor) -> list[int]:
    """The images that a batch (B, 3, SIDE, SIDE) shows."""
    return ((x[:, 0, 0].median(dim=1).values + 1) * 127.5).round().int().tolist()


def write_parquet(path: Path, images: Iterable[int | bytes | None], column: str = "image", group: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": encoded(i) if isinstance(i, int) else i, "path": None} for i in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({column: pa.array(rows, kind)}), path, row_group_size=group)
    return path


def write_tar(path: Path, images: Iterable[int | bytes], endings: tuple[str, ...] = ("png",)) -> Path:
    """Write images named 000000.png and so on, and beside each a label and what a Mac leaves in archives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for at, image in enumerate(images):
            ending = endings[at % len(endings)]
            content = encoded(image, "PNG" if ending == "png" else "WEBP") if isinstance(image, int) else image
            for name, data in ((f"{at:06}.cls", b"7"), (f"._{at:06}.png", b"?"), (f"{at:06}.{ending}", content)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def write_set(folder: Path, kind: str, counts: list[int]) -> Path:
    """Write shards of so many training images, numbered on from 0, and three test images, 200 to 202."""
    write = {"parquet": write_parquet, "tar": write_tar}[kind]
    start = 0
    for shard, count in enumerate(counts):
        write(folder / f"train-{shard:03}.{kind}", range(start, start + count))
        start += count
    write(folder / f"test-000.{kind}", range(200, 203))
    return folder
