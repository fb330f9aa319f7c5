"""Files and folders that are whole or not there, in folders that one process at a time writes."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from hybridvq.errors import ConfigError

LOCK = ".hybridvq-lock"
PARTIAL = ".hybridvq-{}.partial"  # short, so that a name as long as the file system takes can be written


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write `content` beside `path` and move it there: a kill or a full disk leaves the old file, never half a new one.

    Any number of processes may write one path at a time; readers find the whole content of one of them.

    Raises:
        OSError: it cannot be written; its filename is `path`.
    """
    partial = path.with_name(PARTIAL.format(uuid4().hex))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Inside, `path` is written; raises ConfigError, which names it, where that cannot be."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}); choose another --out") from error


def check_new(out: Path) -> None:
    """Raise ConfigError if something is there that a new folder would replace."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists already; choose another --out, or remove it first")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder, to be filled inside, that then becomes `path`, where there is nothing yet; gone after an error.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.absolute().with_name(PARTIAL.format(uuid4().hex))
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def remove_partial(folder: Path) -> None:
    """Remove what processes that were killed had begun to write in a folder, which nobody may be writing in."""
    for partial in folder.glob(PARTIAL.format("*")):
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Inside, no other process is in here for the same folder; the system ends that when this one dies.

    Raises:
        ConfigError: another one is, or the folder cannot be written.
    """
    lock = FileLock(folder / LOCK, thread_local=False)
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise ConfigError(
                f"{folder} is being written by another process; wait until that ends, or choose another --out"
            ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            (folder / LOCK).unlink(missing_ok=True)  # while it is held: whoever waits for it sees that it is gone
        lock.release()
        for place in new:
            with suppress(OSError):
                place.rmdir()  # unless something was written
