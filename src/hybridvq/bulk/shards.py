"""One shard of tokens: made whole, or not there."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hybridvq.bulk.schema import KEY, LABEL, Manifest, to_table
from hybridvq.data import EvalBatches, Images
from hybridvq.errors import ConfigError, DataError
from hybridvq.tokenizer import Tokenizer, load_tokenizer
from hybridvq.writing import write_whole

GROUP_ROWS = 256  # images read together; a shuffled reader pays for a whole group


@dataclass(frozen=True)
class Job:
    """All that a worker needs to make any shard, small enough to be sent to it."""

    model: Path
    images: Images
    out: Path
    manifest: Manifest
    batch_size: int


class ShardMaker:
    """Loads the model once, then makes shards.

    Everything is computed in float32 and, on a CPU, on one thread: what a shard holds depends neither on the number of
    workers nor on the precision that the device would rather use.
    """

    def __init__(self, job: Job, device: str) -> None:
        self.job, self.device = job, torch.device(device)
        self.tokenizer: Tokenizer = load_tokenizer(job.model).to(self.device)

    def __call__(self, shard: int) -> int:
        """Write shard `shard` and return its number of images.

        Raises:
            DataError: an image cannot be decoded.
            ConfigError: the file cannot be written.
        """
        manifest = self.job.manifest
        rows = manifest.rows(shard)
        batches = EvalBatches(ImageRange(self.job.images, rows), self.job.batch_size)
        with exact():
            encoded = [self._encode(batches[i]) for i in range(len(batches))]
        parts = {name: np.concatenate([arrays[name] for arrays in encoded]) for name in manifest.columns}
        class_ids = self.job.images.class_ids  # read when the manifest was made, and sent with the images
        if class_ids is not None:
            parts[LABEL] = class_ids[rows.start : rows.stop]
        path = self.job.out / manifest.file(shard)
        try:
            write_whole(path, to_parquet(to_table(parts, rows, manifest.schema()), manifest))
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be written ({error.strerror or error}); make room there; the same command continues "
                "from the finished shards"
            ) from error
        return len(rows)

    @torch.inference_mode()
    def _encode(self, x: torch.Tensor) -> dict[str, np.ndarray]:
        tokens = vars(self.tokenizer.encode(x.to(self.device)))
        columns = self.job.manifest.columns
        return {name: tokens[name].cpu().numpy().astype(column.dtype) for name, column in columns.items()}


class ImageRange(Images):
    """Consecutive images of a set, for their pixels alone."""

    def __init__(self, images: Images, rows: range) -> None:
        self.images, self.rows = images, rows
        self.size = images.size

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, index: int) -> np.ndarray:
        return self.images.pixels(self.rows[index])

    def origin(self, index: int, height: int, width: int) -> tuple[int, int]:
        return self.images.origin(self.rows[index], height, width)


def without_memory(images: Images) -> Images:
    """The same images, decoded when they are asked for: a worker needs few of those a set may keep decoded."""
    light = copy(images)
    if "_memory" in vars(light):
        vars(light)["_memory"] = None
    return light


@contextmanager
def exact() -> Iterator[None]:
    """One thread, no TF32 and no autocast while inside."""
    threads, convolutions, products = (
        torch.get_num_threads(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


def to_parquet(table: pa.Table, manifest: Manifest) -> memoryview:
    """The bytes of a shard, its pages checksummed; a dictionary packs integers to about log2 K bits per code."""
    columns: dict[bool, list[str]] = {True: [], False: ["index", LABEL]}
    for name, column in manifest.columns.items():
        if column.dtype != "bool":
            columns[column.is_float].append(f"{name}.list.element")
    content = pa.BufferOutputStream()
    pq.write_table(
        table,
        content,
        row_group_size=GROUP_ROWS,
        compression="zstd",
        use_dictionary=columns[False],
        use_byte_stream_split=columns[True],
        write_page_checksum=True,
    )
    return memoryview(content.getvalue())


def read_footer(path: Path, shard: int, manifest: Manifest) -> Any:
    """The footer of a shard, once it is known to belong to `manifest`.

    Raises:
        DataError: the file is missing, damaged, or another manifest's.
    """
    try:
        footer = pq.read_metadata(path, memory_map=True)
    except FileNotFoundError:
        raise DataError(f"the shard {path} is missing; run `hybridvq tokenize` again to make it") from None
    # ArrowInvalid, OSError and others, depending on what is wrong with the file.
    except Exception as error:
        raise damaged(path, error) from None
    if (footer.metadata or {}).get(KEY) != manifest.digest().encode() or footer.num_rows != len(manifest.rows(shard)):
        raise DataError(f"the shard {path} was made with other settings; delete it, and run `hybridvq tokenize` again")
    return footer


def damaged(path: Path, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return DataError(f"the shard {path} is damaged ({reason}); delete it, and run `hybridvq tokenize` again to make it")
