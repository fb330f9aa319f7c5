import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Sums over pixels depend on how many threads share them; tests of exact numbers need one."""
    torch.set_num_threads(1)
