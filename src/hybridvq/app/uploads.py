"""Uploaded files, from their arrival until they are read: each in a folder of its own, all in a folder of this run."""

import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from hybridvq.errors import DataError

MAX_BYTES = 64 * 2**20  # of a file
MOST = 32  # files that arrive or wait to be read, of all visitors together
SECONDS = 600  # that a file waits to be read
NAME_BYTES, ENDING_BYTES = 200, 16  # of a file's name
RUN = "hybridvq-app-uploads-"


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder for this run alone, removed at its end, as are first those of runs that were killed.

    A run locks its folder before it makes it. The system drops the lock when the process ends, however it ends.
    """
    root = Path(tempfile.gettempdir())
    for left in root.glob(f"{RUN}*.lock"):
        with suppress(OSError, Timeout), FileLock(left, timeout=0):
            remove(left.with_suffix(""))
            left.unlink()
    folder = root / f"{RUN}{secrets.token_hex(8)}"
    lock = folder.with_suffix(".lock")
    with FileLock(lock):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            remove(folder)
            lock.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


class Uploads:
    """The files below `root` that have not been read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def receive(self, request: Request) -> Response:
        """Keep the one file of a request, and answer its path; nothing stays of a request that breaks off."""
        self.remove_old()
        if len(list(self.root.iterdir())) >= MOST:
            return PlainTextResponse("Too many uploads are waiting; try again in a minute.", 503)
        folder = self.root / secrets.token_hex(16)
        folder.mkdir(mode=0o700)
        try:
            async with request.form(max_files=1, max_fields=0) as form:
                sent = form.get("files")
                if not isinstance(sent, UploadFile):
                    remove(folder)
                    return PlainTextResponse("Send one file.", 400)
                path = folder / safe_name(sent.filename or "")
                await run_in_threadpool(write, sent.file, path)
        except ClientDisconnect:
            remove(folder)
            return PlainTextResponse("The upload broke off.", 400)
        except BaseException:
            remove(folder)
            raise
        return JSONResponse([str(path)])

    def find(self, path: object) -> Path:
        """The file that an upload was answered with.

        Raises:
            DataError: it is none, or no longer there.
        """
        found = Path(path) if isinstance(path, str) else self.root
        if found.parent.parent != self.root or ".." in found.parts or not found.is_file():
            raise DataError("No file has arrived; upload it again.")
        return found

    def remove_old(self) -> None:
        """Remove what nobody has read in time."""
        for folder in self.root.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - folder.stat().st_mtime > SECONDS:
                    remove(folder)


def safe_name(sent: str) -> str:
    """The last part of what a browser calls a file, as a name that any file system takes, with its ending."""
    last = sent.replace("\\", "/").rsplit("/", 1)[-1]
    stem, ending = os.path.splitext("".join(c for c in last if c.isprintable() and c not in '<>:"|?*'))
    return (shorten(stem, NAME_BYTES).strip(". ") or "upload") + shorten(ending, ENDING_BYTES)


def shorten(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def write(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(source, file)
