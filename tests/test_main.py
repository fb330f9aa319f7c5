"""The command line as a process: signals before, during and after a command, closed pipes, narrow terminals."""

import os
import signal
import subprocess
import sys

import pytest

ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in ("PYTHONUNBUFFERED", "PYTHONIOENCODING")}
ENVIRONMENT["PYTHONPATH"] = os.pathsep.join(sys.path)
SENT = """
import atexit, os, signal, sys
from hybridvq.__main__ import main
module, number, answer = sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)
class Signal:
    def find_spec(self, name, *_):
        if name == module:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), number)
            except KeyboardInterrupt:
                if answer == "hide":
                    raise ImportError("numpy makes this of it")
                raise
sys.meta_path.insert(0, Signal())
if module == "exit":
    atexit.register(os.kill, os.getpid(), number)
sys.exit(main())
"""
IGNORED = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"
CLOSED = """
import os, sys
os.close(1), os.close(2)
sys.stdout = sys.stderr = None
from hybridvq.__main__ import main
sys.exit(main())
"""


def call(words, code=None, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    start = ["-c", code] if code else ["-m", "hybridvq"]
    environment = ENVIRONMENT | options.pop("env", {})
    return subprocess.run([sys.executable, *start, *words], text=True, env=environment, timeout=120, **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "answer", "words"),
    [
        ("jsonargparse", "", ["--version"]),
        ("hybridvq.commands.train", "", ["--version"]),
        ("torch", "", ["evaluate", "photos"]),
        ("torch", "hide", ["evaluate", "photos"]),
        ("exit", "", ["--version"]),
    ],
)
def test_a_signal_at_any_time(module, answer, words, number):
    done = call([module, str(int(number)), answer, *words], SENT)
    assert done.returncode == 128 + number
    said = f"hybridvq: {'interrupted' if number == signal.SIGINT else 'terminated'}\n"
    assert done.stderr == (said if module == "torch" and not answer else "")


def test_a_signal_that_is_ignored_from_the_start_stays_so():
    """A job in the background of a script, or under nohup, does not stop when somebody else is interrupted."""
    done = call(["jsonargparse", str(int(signal.SIGINT)), "", "--version"], IGNORED + SENT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("hybridvq ")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["train", "--print-recipe"], ["info", "/no/where"]])
def test_nobody_reads_what_is_printed(words, unbuffered):
    here, there = os.pipe()
    os.close(here)
    broken = {"stdout": there} if words[0] == "train" else {"stderr": there}
    done = call(words, **broken, env={"PYTHONUNBUFFERED": unbuffered})
    os.close(there)
    assert done.returncode == (1 if words[0] == "train" else 2)
    assert not done.stdout
    assert not done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_output_that_does_not_fit():
    with open("/dev/full", "w") as full:
        done = call(["train", "--print-recipe"], stdout=full)
        assert (done.returncode, done.stderr) == (
            2, "hybridvq: standard output cannot be written (No space left on device)\n"
        )  # fmt: skip
        assert call(["info", "/no/where"], stderr=full).returncode == 2


def test_closed_streams():
    assert call(["train", "--print-recipe"], CLOSED).returncode == 0
    assert call(["train", "--nope"], CLOSED).returncode == 2


def test_a_terminal_that_knows_few_letters(tmp_path):
    recipe = tmp_path / "größe.yaml"
    recipe.write_text("title: Größe λ\n", encoding="utf-8")
    done = call(["train", "--recipe", str(recipe), "--print-recipe"], env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "title: Gr\\xf6\\xdfe \\u03bb\n" in done.stdout
    done = call(["info", str(tmp_path / "λ")], env={"PYTHONIOENCODING": "ascii:strict"})
    assert done.returncode == 2
    assert "\\u03bb" in done.stderr
