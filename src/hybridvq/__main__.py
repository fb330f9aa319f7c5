"""The command line as a process of its own: what it does about signals, closed pipes and narrow terminals.

This file and what it imports at once stay small: a signal that comes before `main` is answered by Python, at length.
"""

import os
import select
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

UNREAD = 1  # the exit code where nobody reads stdout any more, as of other programs in Python


def main() -> int:
    """Run the command line and return the exit code.

    It is that of `hybridvq.cli.main`, 1 where nobody reads what is printed, or 128 and the number of a signal.
    Ctrl-C and SIGTERM are both answered with a KeyboardInterrupt while a command runs, and end the process at once
    before and after that. Where they are ignored from the start, as under nohup, they stay ignored.
    """
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt("" if number == signal.SIGINT else "terminated")

    prepare_streams()
    answer_signals(end)
    from hybridvq.cli import complain
    from hybridvq.cli import main as run

    try:
        answer_signals(interrupt)
        try:
            code = run()
        except SystemExit as stop:  # after --help and the like
            code = int(stop.code or 0)
        sys.stdout.flush()
    except OSError as error:
        code = UNREAD if is_unread(sys.stdout) else 2
        with suppress(OSError):
            if code != UNREAD:
                complain(f"standard output cannot be written ({error.strerror or error})")
        discard(sys.stdout, sys.stderr)
    except BaseException:  # an interrupted import may raise anything
        if not received:
            raise
        code = 2
    answer_signals(end)
    return 128 + received[-1] if received and code else code


def prepare_streams() -> None:
    """Let no character fail to be printed, and let closed streams take what is printed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


def answer_signals(answer: Callable[[int, object], None]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, answer)


def end(number: int, _: object) -> None:
    os._exit(128 + number)


def is_unread(stream: TextIO) -> bool:
    """Whether a stream is a pipe, and closed at its other end."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def discard(*streams: TextIO) -> None:
    """Let what is still to be written go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
