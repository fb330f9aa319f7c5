"""What a row of a shard holds, and the manifest beside the shards."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from hybridvq._version import __version__
from hybridvq.data import Images
from hybridvq.devices import evaluating
from hybridvq.documents import read_json, to_json
from hybridvq.errors import ConfigError, DataError
from hybridvq.quantizers import Tokens, TokenSpace
from hybridvq.saved import CONFIG
from hybridvq.tokenizer import Tokenizer, weight_hash

MANIFEST = "tokens.json"
FORMAT = 1
LABEL = "label"
KEY = b"hybridvq"  # of the parquet metadata that names the manifest a shard belongs to


@dataclass(frozen=True)
class TokenColumn:
    """One part of the tokens of an image: numbers of one type, stored as a list in row-major order of `shape`."""

    dtype: str
    shape: tuple[int, ...]  # (S, h, w), (D, h, w) or (1, h, w)

    @property
    def length(self) -> int:
        return int(np.prod(self.shape))

    def field(self, name: str) -> pa.Field:
        element = pa.field("element", pa.from_numpy_dtype(np.dtype(self.dtype)), nullable=False)
        return pa.field(name, pa.list_(element, self.length), nullable=False)

    @property
    def is_float(self) -> bool:
        return np.dtype(self.dtype).kind == "f"


@dataclass(frozen=True)
class Manifest:
    """What the shards of a folder are the tokens of; all of it but `hybridvq` decides what is in them.

    Attributes:
        model: `sha256` of model.safetensors, and `config`, as in its config.json.
        data: `name`, `fingerprint`, `split`, `size` and number of `images`; names of the `classes` if images have any.
        quantizer: `codebook_size` K, `levels` L, `stages` S; None where there are none.
        grid: (h, w), positions of an image.
        columns: what is stored, by the names of `Tokens`.
        shard_images: images in each shard but the last.
        format: version of this layout.
        hybridvq: the version that wrote it.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    quantizer: dict[str, int | None]
    grid: tuple[int, int]
    columns: dict[str, TokenColumn]
    shard_images: int
    format: int = FORMAT
    hybridvq: str = __version__

    @property
    def images(self) -> int:
        return int(self.data["images"])

    @property
    def classes(self) -> tuple[str, ...] | None:
        return tuple(self.data["classes"]) if "classes" in self.data else None

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_images)

    def rows(self, shard: int) -> range:
        """The numbers of the images in shard `shard`."""
        return range(shard * self.shard_images, min((shard + 1) * self.shard_images, self.images))

    def file(self, shard: int) -> str:
        return f"{self.data['split']}-{shard:05d}-of-{self.shards:05d}.parquet"

    def schema(self) -> pa.Schema:
        """One row per image: its number, its class if it has one, then its tokens."""
        numbers = ["index"] if self.classes is None else ["index", LABEL]
        fields = [pa.field(name, pa.int64(), nullable=False) for name in numbers]
        fields += [column.field(name) for name, column in self.columns.items()]
        return pa.schema(fields, metadata={KEY: self.digest()})

    def digest(self) -> str:
        """SHA-256 of everything that decides what is in the shards."""
        content = asdict(self)
        del content["hybridvq"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> bytes:
        return to_json(asdict(self))


def make_manifest(
    tokenizer: Tokenizer, folder: Path, images: Images, shard_images: int, codes_alone: bool = False
) -> Manifest:
    """The manifest of the tokens of `images`, or of their codes, from the tokens of a blank one.

    Raises:
        ConfigError: the model's tokens hold coefficients.
        ShapeError: the images do not divide into whole positions.
    """
    space = tokenizer.quantizer.space()
    space = space.codes_alone if codes_alone else space
    if space.coefficients:
        raise ConfigError(
            f"{folder} has a hybrid quantizer, whose coefficients and steps have no columns in token shards yet; use a "
            "model of another kind, or keep its codes alone, if it has some"
        )
    tokenizer.check_size(images.size)
    with evaluating(tokenizer), torch.inference_mode():
        tokens = tokenizer.encode(torch.zeros(1, 3, images.size, images.size))
    if tokens.coefficients is not None:
        tokens = Tokens(codes=tokens.codes)
    quantizer = tokenizer.quantizer
    height, width = next(iter(tokens.parts.values())).shape[2:]
    return Manifest(
        model={"sha256": weight_hash(folder), "config": read_json(folder / CONFIG)},
        data={
            "name": images.name,
            "fingerprint": images.fingerprint,
            "split": images.split,
            "size": images.size,
            "images": len(images),
        }
        | ({} if images.classes is None else {"classes": list(images.classes)}),
        quantizer={"codebook_size": quantizer.codebook_size, "levels": quantizer.levels, "stages": quantizer.stages},
        grid=(height, width),
        columns=make_columns(tokens, space),
        shard_images=shard_images,
    )


def make_columns(tokens: Tokens, space: TokenSpace) -> dict[str, TokenColumn]:
    """A column for each part that these tokens hold, in the smallest type that holds its values."""
    columns = {}
    for name, values in tokens.parts.items():
        if values.dtype == torch.int64:
            symbols = space.codebook_size if name == "codes" else space.levels
            assert symbols
            dtype = np.min_scalar_type(symbols - 1).name
        else:
            dtype = str(values.dtype).removeprefix("torch.")
        columns[name] = TokenColumn(dtype, tuple(values.shape[1:]))
    return columns


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of tokens.

    Raises:
        DataError: there is none, or it cannot be used.
    """
    path = folder / MANIFEST
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}; this version reads {FORMAT}")
        columns = {name: TokenColumn(c["dtype"], tuple(c["shape"])) for name, c in content["columns"].items()}
        return Manifest(**content | {"columns": columns, "grid": tuple(content["grid"])})
    except FileNotFoundError:
        raise DataError(f"{folder} holds no {MANIFEST}; give a folder that `hybridvq tokenize` wrote") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({' '.join(str(error).split())}); delete it, and run `hybridvq tokenize` again"
        ) from error


def to_table(tokens: Mapping[str, np.ndarray], rows: range, schema: pa.Schema) -> pa.Table:
    """Rows of a shard from arrays (B, ...) of the stored types, and (B,) of classes."""
    parts = {"index": np.arange(rows.start, rows.stop), **tokens}
    arrays = []
    for field in schema:
        values = pa.array(np.ascontiguousarray(parts[field.name]).reshape(-1))
        is_list = pa.types.is_fixed_size_list(field.type)
        arrays.append(pa.FixedSizeListArray.from_arrays(values, type=field.type) if is_list else values)
    return pa.table(arrays, schema=schema)


def to_arrays(table: pa.Table, columns: Mapping[str, TokenColumn]) -> dict[str, np.ndarray]:
    """Arrays (B, ...) of the stored types from rows of a shard."""
    arrays = {}
    for name, column in columns.items():
        values = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        arrays[name] = values.reshape(-1, *column.shape)
    return arrays


def to_tokens(arrays: Mapping[str, np.ndarray]) -> Tokens:
    """Tokens of the types that a quantizer gives: indices and levels int64, coefficients and vectors float32."""
    tokens = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in arrays.items()}
    return Tokens(
        **{
            name: values if values.is_floating_point() or values.dtype == torch.bool else values.to(torch.int64)
            for name, values in tokens.items()
        }
    )
