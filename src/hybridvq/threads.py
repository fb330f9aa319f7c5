"""How many processor cores this process may use, and how many threads torch takes; free of torch."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hybridvq.ranges import Range

VARIABLE = "OMP_NUM_THREADS"
THREADS = Range(1, 2**12)
GROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """The cores that this process may use: those it is bound to, or fewer where its control group has a quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(bound, round(quota(GROUPS))))


def quota(groups: Path) -> float:
    """The cores that the control group mounted at `groups` has time for, version 2 or 1; 65,536 without a limit."""
    try:
        allowed, period = (groups / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            names = (groups / "cpu" / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
            allowed, period = (path.read_text(encoding="ascii").strip() for path in names)
        except (OSError, ValueError):
            return 2**16
    return int(allowed) / int(period) if allowed.isdecimal() else 2**16


@contextmanager
def threads_limited(count: int | None, processes: int = 1) -> Iterator[None]:
    """Inside, torch computes on `count` threads, and so do processes that are started.

    If None, on as many as OMP_NUM_THREADS says, or else on each core that may be used, which the `processes` of this
    machine that train together share.

    Raises:
        ConfigError: the count is below 1.
    """
    if count is not None:
        THREADS.check("threads", count)
    before = os.environ.get(VARIABLE)
    if count is None and before is not None:
        yield
        return
    count = count or max(1, available_cores() // max(processes, int(os.environ.get("LOCAL_WORLD_SIZE") or 1)))
    os.environ[VARIABLE] = str(count)
    torch = sys.modules.get("torch")  # which reads the variable when it is imported
    threads = torch.get_num_threads() if torch else None
    if torch:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before
        if torch and threads:
            torch.set_num_threads(threads)
