"""Files that are whole or not there."""

import os
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write `content` beside `path` and move it there: a kill or a full disk leaves the old file, never half a new one.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
