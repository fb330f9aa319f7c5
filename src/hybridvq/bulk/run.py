"""A data set to shards of tokens: what is still to be made, and who makes it."""

import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hybridvq.bulk.local import default_workers, make_shards
from hybridvq.bulk.schema import MANIFEST, Manifest, make_manifest, read_manifest
from hybridvq.bulk.shards import Job, read_footer, without_memory
from hybridvq.data import Images, Mirrored, Split, open_images
from hybridvq.devices import Device, find_device
from hybridvq.errors import ConfigError, DataError
from hybridvq.ranges import COUNT
from hybridvq.saved import model_folder
from hybridvq.settings import DataSettings
from hybridvq.tokenizer import load_tokenizer
from hybridvq.writing import remove_partial, sole_writer, writable, write_whole

SHARD_IMAGES = 2048
BATCH = 64


@dataclass(frozen=True)
class Summary:
    """What a call of `tokenize` did: shards in the folder, those made by this call, images and bytes in all shards."""

    shards: int
    made: int
    images: int
    bytes: int


def tokenize(
    model: str | Path,
    images: Images | str | Path = "photos",
    out: str | Path = "tokens",
    *,
    size: int | None = None,
    split: Split = "train",
    mirror: bool = False,
    codes_alone: bool = False,
    device: Device = "auto",
    workers: int | None = None,
    shard_images: int = SHARD_IMAGES,
    batch_size: int = BATCH,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
) -> Summary:
    """Write the tokens of `images` to parquet shards in the folder `out`.

    Shard i holds the images [i n, (i + 1) n) and appears whole. A call in a folder that a killed one left makes the
    missing shards alone. Tokens are computed in float32.

    Args:
        model: a run, a model folder or a hub id.
        images: one split of a data set, see `hybridvq.data.open_images`, or what `hybridvq train --data` takes.
        size, split: of the images where they are only named: the side of the crops, that of the training if None, and
            train or test.
        mirror: mirror each image left to right before.
        codes_alone: of a hybrid model, keep the codes without coefficients, which have no columns yet.
        out: the folder; one model, data set and setting each.
        device: where they are computed; auto and cuda mean every GPU there is, and on a cluster its own.
        workers: how many make shards at a time; if None, one for each thread of torch, or for each accelerator.
        shard_images: n.
        batch_size: images encoded together.
        engine: worker processes of this machine, or the actors of a Ray cluster.
        address: of that cluster; if None, RAY_ADDRESS, or else a Ray started on this machine for the call.

    Raises:
        ConfigError: a number is out of range, `out` cannot be written, holds something else or is being written.
        ModelError: the model cannot be loaded.
        ShapeError: the images do not divide into whole positions.
        DataError: an image cannot be read.
        HybridVQError: a worker was killed; finished shards stay, and the same call continues from there.
    """
    for name, value in (("workers", workers), ("shard_images", shard_images), ("batch_size", batch_size)):
        if value is not None:
            COUNT.check(name, value)
    place = find_device(device)
    folder, out = model_folder(model).absolute(), Path(out).absolute()
    tokenizer = load_tokenizer(folder)
    if isinstance(images, str | Path):
        data = DataSettings.of(images, size or tokenizer.size)
        source = str(Path(data.data).absolute()) if Path(data.data).exists() else data.data  # for workers elsewhere
        images = open_images(source, split, size=data.size)
    images = without_memory(images)
    if mirror:
        images = Mirrored(images)
    manifest = make_manifest(tokenizer, folder, images, shard_images, codes_alone)
    with sole_writer(out):
        remove_partial(out)
        write_manifest(out, manifest)
        todo = [shard for shard in range(manifest.shards) if not is_finished(out, shard, manifest)]
        job = Job(folder, images, out, manifest, batch_size)
        if todo and engine == "ray":
            from hybridvq.bulk import cluster

            follow(cluster.make_shards(job, todo, workers, address), manifest, todo)
        elif todo:
            follow(make_shards(job, todo, min(workers or default_workers(place), len(todo)), place), manifest, todo)
    size = sum((out / manifest.file(shard)).stat().st_size for shard in range(manifest.shards))
    return Summary(manifest.shards, len(todo), manifest.images, size)


def write_manifest(out: Path, manifest: Manifest) -> None:
    """Write the manifest, unless `out` has it already.

    Raises:
        ConfigError: `out` holds other tokens or files, or cannot be written.
    """
    if (out / MANIFEST).exists():
        check_same(out, read_manifest(out), manifest)
    own = {manifest.file(shard) for shard in range(manifest.shards)}
    for path in sorted(out.glob("*.parquet")):
        if path.name not in own:
            raise ConfigError(f"{path} is no shard of these tokens; choose another --out, or delete it")
    with writable(out):
        if not (out / MANIFEST).exists():
            write_whole(out / MANIFEST, manifest.to_json())


def check_same(out: Path, found: Manifest, wanted: Manifest) -> None:
    if found.digest() == wanted.digest():
        return
    old, new = flat(asdict(found)), flat(asdict(wanted))
    key = next(key for key in new | old if key != "hybridvq" and old.get(key) != new.get(key))
    raise ConfigError(
        f"{out} holds tokens made with another {key}, {shown(old.get(key))} and not {shown(new.get(key))}; choose "
        "another --out, or delete it"
    )


def flat(content: dict[str, Any]) -> dict[str, Any]:
    """{"data": {"size": 32}} to {"data.size": 32}."""
    pairs: dict[str, Any] = {}
    for key, value in content.items():
        pairs |= {f"{key}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {key: value}
    return pairs


def shown(value: Any) -> str:
    """Hashes by their first digits, lists by their length."""
    if isinstance(value, list):
        return f"{len(value)} of them"
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)


def is_finished(out: Path, shard: int, manifest: Manifest) -> bool:
    """Whether a shard is there; one that was truncated since or is not of this manifest is made again."""
    try:
        read_footer(out / manifest.file(shard), shard, manifest)
    except DataError:
        return False
    return True


def follow(counts: Iterator[int], manifest: Manifest, todo: list[int]) -> None:
    """Wait until all shards are made, with a bar where somebody watches."""
    before = manifest.images - sum(len(manifest.rows(shard)) for shard in todo)
    bar = Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    try:
        with bar, closing(counts):  # type: ignore[type-var]
            task = bar.add_task(f"tokens, {manifest.data['split']}", total=manifest.images, completed=before)
            for count in counts:
                bar.advance(task, count)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command continues from the finished shards") from None
