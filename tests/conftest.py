import re
import signal

import pytest
import torch

from hybridvq.cli import main
from tiny import TRAIN


def pytest_addoption(parser):
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite the pinned files in tests/golden/")
    parser.addoption("--threads", type=int, default=1, help="of torch, in this process (default: 1)")


def pytest_configure(config):
    """Let processes that tests start answer Ctrl-C, where nohup or a job in the background has turned it off."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def threads(request):
    """Tests hold for any number; one is the quickest for models this small."""
    torch.set_num_threads(request.config.getoption("--threads"))


@pytest.fixture
def complaint(capsys):
    """Run the command line, expect exit code 2 and one line on stderr, and return that line."""

    def run(*words):
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(r"hybridvq: [^\n]+\n", err)
        assert "Traceback" not in err
        return err

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "vector"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder
