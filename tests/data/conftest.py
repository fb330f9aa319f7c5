import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

MakeFolder = Callable[..., Path]


def noise(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise(seed, 8, 8).save(buffer, "PNG")
    return buffer.getvalue()


def structs(rows: list[bytes | None]) -> pa.Array:
    return pa.array(
        [{"bytes": row, "path": None} for row in rows],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write PNG files of noise: make_folder("a/1.png", "b/2.png", root="set")."""

    def make(*names: str, root: str = "set") -> Path:
        for number, name in enumerate(names):
            path = tmp_path / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise(number).save(path)
        return tmp_path / root

    return make
