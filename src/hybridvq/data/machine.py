"""Faults of the machine that would otherwise be put down to the data."""

import errno

from hybridvq.errors import DataError

_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR}


def machine_fault(error: BaseException | None) -> DataError | None:
    """Return what to say of an error that comes, or follows, from the hub's cache or from shared memory, else None."""
    while error is not None:
        if isinstance(error, RuntimeError) and "shared memory" in str(error):
            return DataError(
                f"shared memory cannot be used ({error}); let /dev/shm be written and make it larger, or give fewer "
                "--workers"
            )
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename:
            return DataError(
                f"the cache of the hub at {error.filename} cannot be written ({error.strerror}); set HF_HOME to a "
                "folder that can, or make room there"
            )
        error = error.__cause__ or error.__context__
    return None
