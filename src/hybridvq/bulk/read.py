"""Tokens from disk, a row group at a time."""

from collections.abc import Sequence
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from hybridvq.bulk.schema import LABEL, Manifest, read_manifest, to_arrays, to_tokens
from hybridvq.bulk.shards import damaged, read_footer
from hybridvq.errors import ModelError
from hybridvq.quantizers import Tokens
from hybridvq.saved import model_folder
from hybridvq.tokenizer import weight_hash


class TokenSet(Dataset[Tokens]):
    """The tokens of a data set, by the number of the image.

    `tokens[3]`, `tokens[10:20]` and `tokens[[7, 3, 5]]` are `Tokens` with a batch dimension: codes (B, S, h, w) int64,
    gains (B, S, h, w) int64 levels or float32, vectors (B, D, h, w) float32, passed (B, 1, h, w) bool; None for what
    the model does not have. With a `BatchSampler` as `sampler` and `batch_size=None`, a `DataLoader` yields batches.

    Shards are memory-mapped and read a row group of 256 images at a time; the last group is kept, so that reading in
    order is fast and a shuffled reader holds one group at a time.

    Attributes:
        folder: where the shards are.
        manifest: what they are the tokens of.
        classes: names of the classes of the images, the same for both splits; None where they have none.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Read the shards' footers.

        Raises:
            DataError: a shard is missing, damaged, or belongs to other tokens.
        """
        self.folder, self.manifest, self.classes = folder, manifest, manifest.classes
        self._footers = [read_footer(folder / manifest.file(i), i, manifest) for i in range(manifest.shards)]
        groups = [
            (shard, group, footer.row_group(group).num_rows)
            for shard, footer in enumerate(self._footers)
            for group in range(footer.num_row_groups)
        ]
        self._groups = np.array(groups, dtype=np.int64).reshape(-1, 3)
        self._starts = np.cumsum([0, *self._groups[:, 2]])
        self._loaded: tuple[int, dict[str, np.ndarray]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_loaded": None}

    def __len__(self) -> int:
        return self.manifest.images

    def __getitem__(self, which: int | slice | Sequence[int] | np.ndarray | torch.Tensor) -> Tokens:
        """The tokens of the images `which`, in that order; a batch of one for a number.

        Raises:
            IndexError: there is no such image.
            DataError: a shard is damaged.
        """
        if isinstance(which, slice):
            wanted = np.arange(len(self))[which]
        elif isinstance(which, Sequence | np.ndarray | torch.Tensor) and np.ndim(which):
            wanted = np.asarray(which, dtype=np.int64)
        else:
            wanted = np.array([index(which)])  # type: ignore[arg-type]
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        outside = (wanted < 0) | (wanted >= len(self))
        if outside.any():
            raise IndexError(f"image {wanted[outside][0]} of {len(self)}")
        return to_tokens(self.arrays(wanted))

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The place of each image's class in `classes`, (N,) int64; None where there are none.

        Reads that column of all shards, once.

        Raises:
            DataError: a shard is damaged.
        """
        if self.classes is None:
            return None
        tables = (self._read(i, range(footer.num_row_groups), [LABEL]) for i, footer in enumerate(self._footers))
        return np.concatenate([table.column(LABEL).to_numpy() for table in tables])

    def arrays(self, wanted: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of the tokens of the images `wanted`, (B, ...) each, in the small types that they are stored in.

        Raises:
            DataError: a shard is damaged.
        """
        columns = self.manifest.columns
        out = {name: np.empty((len(wanted), *column.shape), column.dtype) for name, column in columns.items()}
        groups = np.searchsorted(self._starts, wanted, side="right") - 1
        for group in np.unique(groups).tolist():
            rows = np.flatnonzero(groups == group)
            arrays = self._read_group(group)
            for name, values in out.items():
                values[rows] = arrays[name][wanted[rows] - self._starts[group]]
        return out

    def _read_group(self, group: int) -> dict[str, np.ndarray]:
        if self._loaded is None or self._loaded[0] != group:
            shard, within, _ = self._groups[group].tolist()
            table = self._read(shard, [within], list(self.manifest.columns))
            self._loaded = group, to_arrays(table, self.manifest.columns)
        return self._loaded[1]

    def _read(self, shard: int, groups: Sequence[int], columns: list[str]) -> pa.Table:
        path, footer = self.folder / self.manifest.file(shard), self._footers[shard]
        try:
            # Opened anew each time: an open file survives neither pickling nor the fork of a data loader.
            with pq.ParquetFile(path, metadata=footer, memory_map=True, page_checksum_verification=True) as file:
                table = file.read_row_groups(groups, columns, use_threads=False)
            # Checksums leave out the headers of pages, and a page whose header is of no known kind is passed over.
            if table.num_rows != sum(footer.row_group(group).num_rows for group in groups):
                raise ValueError(f"{table.num_rows} rows could be read")
            return table
        # Damaged pages surface as ArrowInvalid, OSError or MemoryError, depending on the byte.
        except Exception as error:
            raise damaged(path, error) from None

    def check(self, model: str | Path) -> None:
        """Raise ModelError unless these are the tokens of `model`.

        That is its folder, its run or its hub id, or the SHA-256 of its weights in hexadecimal.
        """
        own = self.manifest.model["sha256"]
        is_hash = isinstance(model, str) and len(model) == len(own) and not Path(model).exists()
        given = model if is_hash else weight_hash(model_folder(model))
        if given != own:
            raise ModelError(
                f"{self.folder} holds the tokens of a model whose weights have SHA-256 {own[:12]}..., not of {model}; "
                "give that model, or run `hybridvq tokenize` with this one"
            )


def load_tokens(folder: str | Path) -> TokenSet:
    """Open a folder that `hybridvq tokenize` wrote.

    Raises:
        DataError: it is none, or a shard is missing or damaged.
    """
    folder = Path(folder)
    return TokenSet(folder, read_manifest(folder))
