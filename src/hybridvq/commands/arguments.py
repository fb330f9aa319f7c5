"""Arguments that several commands share, and how their values are read."""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from jsonargparse import ArgumentParser, Namespace

from hybridvq.commands.parser import given_values
from hybridvq.documents import read_json, to_json
from hybridvq.errors import ConfigError
from hybridvq.printing import say
from hybridvq.ranges import COUNT
from hybridvq.saved import CONFIG, is_unfinished, model_folder
from hybridvq.settings import DataSettings

if TYPE_CHECKING:
    from hybridvq.data import Images, Stream

T = TypeVar("T")

EVAL_BATCH = 64
FILE_ENDINGS = {".csv", ".hvq", ".html", ".json", ".onnx", ".parquet", ".safetensors", ".tar", ".yaml", ".yml", ".zip"}
FLAGS = {
    "skip_unreadable": "leave out images that cannot be read, and list them, instead of stopping",
    "stream": "read a hub id, parquet or tar files shard by shard, for sets that fit neither in memory nor on disk",
}


CODEC_MODEL = "a folder that `hybridvq train` wrote and `hybridvq fit-codec` completed, a bundled model, or a hub id"
MODEL = "a folder that `hybridvq train` wrote, a bundled model, or a hub id"


def add_model_argument(
    parser: ArgumentParser, words: Sequence[str], help: str = MODEL, default: str | None = None
) -> None:
    """The model of a command, its first argument; --model MODEL among the words is the same."""
    help += "; --model MODEL is the same"
    if "--model" in dict(given_values(words)):
        parser.add_argument("--model", type=str, required=True, help=help)
    elif default:
        parser.add_argument("model", type=str, nargs="?", default=default, help=help)
    else:
        parser.add_argument("model", type=str, help=help)


def add_device_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        type=str,
        default="auto",
        help="where to compute: cpu, cuda, cuda:1, mps; auto takes the first of CUDA, Apple's Metal and the CPU",
    )


def add_threads_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=int | None,
        default=None,
        help="processor threads of each process; if not given, as many as OMP_NUM_THREADS says, or a share of the "
        "cores that may be used",
    )


def checked_out(out: str, ending: str = "") -> Path:
    """--out of a command that writes a folder, or, with an `ending`, one file of that ending.

    Raises:
        ConfigError: it is a file, or is not there and would be a folder with the name of a file.
    """
    from hybridvq.data.decode import image_extensions

    path = Path(out)
    if os.path.isdir(path) or (ending and path.suffix.lower() == ending):
        return path
    wanted = f"a folder, or one {ending} file" if ending else "a folder"
    if os.path.exists(path):
        raise ConfigError(f"--out is {out}, which is a file; give {wanted}")
    if path.suffix.lower() in image_extensions() | FILE_ENDINGS:
        raise ConfigError(f"--out is {out}, the name of a file; give {wanted}")
    return path


def add_data_arguments(parser: ArgumentParser) -> None:
    parser.add_class_arguments(DataSettings, skip=set(FLAGS))
    add_flags(parser, FLAGS)


def add_data_and_size_arguments(parser: ArgumentParser, flags: Iterable[str]) -> None:
    """The images that a command reads for a trained model, whose run tells the size."""
    parser.add_class_arguments(DataSettings, skip={"size", "shuffle_buffer", "workers", *FLAGS})
    parser.add_argument(
        "--size",
        type=int | None,
        default=None,
        help="side of the square crops, in pixels; if not given, the one of the training, or 32 where no model says it",
    )
    add_flags(parser, flags)


def add_flags(parser: ArgumentParser, names: Iterable[str]) -> None:
    for name in names:
        parser.add_argument(f"--{name}", action="store_true", help=FLAGS[name])


def add_run_arguments(parser: ArgumentParser, out: str, seed_of: str) -> None:
    """The folder that a training run writes to, and the devices it runs on."""
    parser.add_argument("-o", "--out", type=str, default=out, help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help=f"of {seed_of}")
    parser.add_argument(
        "--resume", action="store_true", help="continue from the last checkpoint in --out, if there is one"
    )
    parser.add_argument(
        "--devices",
        type=int | Literal["auto"] | None,
        default=None,
        help="processes on this machine, one per GPU where there are some, or auto for all GPUs; if not given, as many "
        "as torchrun or SLURM started, or 1",
    )
    parser.add_argument(
        "--num_nodes",
        type=int | None,
        default=None,
        help="machines that train together; if not given, as many as torchrun or SLURM use, or 1",
    )
    add_device_argument(parser)
    parser.add_argument("--eval_images", type=int, default=2048, help="held-out images measured during the training")


def check_eval_images(arguments: Namespace) -> None:
    """Raise ConfigError unless some held-out images are measured."""
    COUNT.check("--eval-images", arguments.eval_images)


def settings_of(kind: type[T], arguments: Namespace) -> T:
    """The dataclass whose fields are all among the arguments."""
    return kind(**{field.name: arguments[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def data_settings(arguments: Namespace) -> DataSettings:
    """What a command was told about its images; `workers` of a command without streams are its own."""
    from hybridvq.data.sources import check_source

    keys = set(DataSettings.__dataclass_fields__) - (set() if "stream" in arguments else {"workers"})
    data = DataSettings(**{key: arguments[key] for key in keys if key in arguments})
    check_source(data.data)
    return data


def data_of_the_model(arguments: Namespace, unfinished: bool = False) -> DataSettings:
    """As `data_settings`, at the size that `model`, or a run that is `unfinished`, is trained on if none is given."""
    if not unfinished:
        model_folder(arguments.model)  # a wrong name shows before the images are read
    if arguments.size is None:
        arguments.size = trained_size(arguments.model)
    return data_settings(arguments)


def open_train_side(data: DataSettings) -> "Images | Stream":
    from hybridvq.data import open_side, open_stream

    if not data.stream:
        return open_side(data, "train")
    return open_stream(
        data.data,
        "train",
        size=data.size,
        shuffle_buffer=data.shuffle_buffer,
        workers=data.workers,
        skip_unreadable=data.skip_unreadable,
    )


def open_test_side(data: DataSettings, limit: int | None) -> "Images":
    """The held-out images: all, or `limit` of them, which for a stream must be given."""
    from hybridvq.data import open_side, open_stream

    if not data.stream:
        return open_side(data, "test", limit)
    assert limit is not None
    return open_stream(data.data, "test", size=data.size, skip_unreadable=data.skip_unreadable).take(limit)


def progress(files: Collection[T], doing: str) -> Iterator[T]:
    """The files one by one, with a bar above what is printed where errors go to a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(files, doing, console=console, disable=not console.is_terminal)


def print_rows(rows: Sequence[Mapping[str, Any]], sizes: Sequence[str], as_json: bool) -> None:
    """Print what there is, a name, a size and a summary a line, or all as JSON."""
    if as_json:
        print(to_json(rows).decode())
        return
    widths = max(len(row["name"]) for row in rows), max(map(len, sizes))
    for row, size in zip(rows, sizes, strict=True):
        say(f"{row['name']:{widths[0]}}  {size:>{widths[1]}}  {row['summary']}")


def list_skipped(skipped: Sequence[str]) -> None:
    if skipped:
        say(f"left out {len(skipped)} unreadable images:", error=True)
    for line in skipped:
        say(f"  {line}", error=True)


def trained_size(model: str) -> int:
    """The size of the images a model was trained on, as its folder or its run's says; the default size without that."""
    unfinished, default = is_unfinished(Path(model)), DataSettings().size
    folder = Path(model) / "model" if unfinished else model_folder(model)
    try:
        size = None if unfinished else read_json(folder / CONFIG).get("size")
    except (OSError, ValueError):
        return default  # whoever loads the model says what is wrong
    try:
        size = size or read_json(folder.parent / "recipe.json")["data"]["size"]  # of older models
        return DataSettings(size=size).size
    except (OSError, ValueError, KeyError, TypeError):
        say(f"{model} does not say at what size it was trained; {default} is used, or give --size", error=True)
        return default
