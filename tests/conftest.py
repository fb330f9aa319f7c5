import pytest
import torch


def pytest_addoption(parser):
    parser.addoption("--regenerate-golden", action="store_true", help="rewrite the pinned files in tests/golden/")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums over pixels depend on how many threads share them; tests of exact numbers need one."""
    torch.set_num_threads(1)
