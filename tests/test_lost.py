"""Processes that die: all of them, or one of two, which must not keep the other waiting."""

import os
import re
import signal
import subprocess
import sys

import pytest

import tiny
from hybridvq.errors import LostProcessError
from hybridvq.training.module import TokenizerTraining
from hybridvq.writing import LOCK
from replicas import in_two
from runs import CHECKPOINT, read_checkpoint, run, weights

DIES = """
import os, signal, sys
from hybridvq.cli import main
if os.environ.get("LOCAL_RANK") == "1" and "--resume" not in sys.argv:
    from hybridvq.training.module import TokenizerTraining
    step = TokenizerTraining.training_step
    def die(self, *batch):
        return step(self, *batch) if self.global_step < 7 else os.kill(os.getpid(), signal.SIGKILL)
    TokenizerTraining.training_step = die
sys.exit(main())
"""
GUARDED = """
import threading, time
from hybridvq import launch
launch.GRACE = 0.1
launch.guard(lambda: True, threading.Event())
time.sleep(60)
"""


def train_and_die(rank, folder, dying, resume):
    """The processes `dying` are killed at step 7, or at 12 after a resume; the others tell what they met."""
    step, last = TokenizerTraining.training_step, 12 if resume else 7
    if rank in dying:

        def die(self, *batch):
            return step(self, *batch) if self.global_step < last else os.kill(os.getpid(), signal.SIGKILL)

        TokenizerTraining.training_step = die
    try:
        run(folder, resume=resume)
    except LostProcessError as error:
        (folder / "said").write_text(str(error))
        sys.exit(2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert in_two(train_and_die, folder, (), False) == [0, 0]
    return folder


def test_two_killed_processes_resume_to_the_bit(whole, tmp_path):
    """All die, then one of two, either of them; each time the run continues from its last checkpoint."""
    killed = -signal.SIGKILL
    assert in_two(train_and_die, tmp_path, (0, 1), False) == [killed, killed]
    assert read_checkpoint(tmp_path)["global_step"] == 5
    for dying, codes in (((0,), [killed, 2]), ((1,), [2, killed])):
        assert in_two(train_and_die, tmp_path, dying, True) == codes
        said = (tmp_path / "said").read_text()
        assert said.startswith("another process of this run stopped, and this one with it; ")
        assert said.endswith("continue with --resume")
        assert "\n" not in said
        (tmp_path / "said").unlink()
        assert read_checkpoint(tmp_path)["global_step"] == 10
        assert {path.name for path in tmp_path.iterdir()} - {LOCK} == {"recipe.json", "checkpoints", "tensorboard"}
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]
    assert in_two(train_and_die, tmp_path, (), True) == [0, 0]
    assert weights(tmp_path) == weights(whole)


def test_the_command_line_stops_and_goes_on(tmp_path):
    """The second of two processes that the command started is killed; the first says one sentence and exits with 2."""
    words = ["train", "--recipe", "vector", "--training.steps", "20", "--training.checkpoint_every", "5"]
    words += ["--eval-images", "16", *tiny.COMMAND_LINE, "--devices", "2", "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIES, *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    begun = r"data: [^\n]+\n[^\n]+ on 2 processes of cpu at [\w-]+\n"
    assert re.fullmatch(begun, done.stdout)
    assert re.fullmatch(r"hybridvq: another process of this run stopped, [^\n]*continue with --resume\n", done.stderr)
    assert done.returncode == 2
    assert (tmp_path / "run" / CHECKPOINT).exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stderr == ""
    said = r"test MSE 0\.\d{4} after 20 steps, \d+ images per second\nmodel: \S+/run/model\n"
    assert re.fullmatch(begun + said, done.stdout)
    assert done.returncode == 0


def test_a_process_that_does_not_notice_is_ended():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2
    assert re.fullmatch(r"hybridvq: another process of this run stopped, [^\n]*\n", done.stderr)
