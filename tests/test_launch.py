"""How many processes there are, from the command line, torchrun and SLURM."""

import sys

import pytest
import torch

from hybridvq import ConfigError
from hybridvq.launch import Processes, find_processes, is_first, start

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "6", "SLURM_NNODES": "3", "SLURM_JOB_NAME": "vq"}


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """No launcher around the tests themselves, and no GPU."""
    for name in (*TORCHRUN, *SLURM, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def environment(monkeypatch):
    return lambda variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


def test_one_process_unless_asked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert find_processes() == Processes(1, 1, 0, None)
    assert find_processes(devices="auto").devices == 4
    assert is_first()


def test_what_a_launcher_started_need_not_be_repeated(environment):
    environment(TORCHRUN)
    assert find_processes() == find_processes(4, 2) == Processes(4, 2, 5, "torchrun")
    assert not is_first()
    with pytest.raises(ConfigError, match="devices is 1, but torchrun started 4; leave it out"):
        find_processes(1)


def test_tasks_of_slurm(environment):
    environment(SLURM)
    assert find_processes() == Processes(2, 3, 3, "slurm")
    with pytest.raises(ConfigError, match="num_nodes is 2, but slurm started 3"):
        find_processes(num_nodes=2)
    environment({"SLURM_NTASKS": "7"})
    with pytest.raises(ConfigError, match="SLURM started 7 tasks on 3 nodes; use --ntasks-per-node"):
        find_processes()


@pytest.mark.parametrize("change", [{"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, {"SLURM_JOB_NAME": "bash"}])
def test_within_slurm_but_not_started_by_it(environment, change):
    environment(SLURM | change)
    assert find_processes(2) == Processes(2, 1, 0, None)


def test_machines_that_are_started_one_by_one(environment):
    with pytest.raises(ConfigError, match="use torchrun or srun, or set MASTER_ADDR, MASTER_PORT, NODE_RANK on each"):
        find_processes(2, 2)
    environment({"MASTER_ADDR": "node-0", "MASTER_PORT": "29500", "NODE_RANK": "1"})
    assert find_processes(2, 2) == Processes(2, 2, 2, None)
    assert find_processes(2) == Processes(2, 1, 0, None)


def test_numbers_that_cannot_be_had(monkeypatch):
    for name in ("devices", "num_nodes"):
        with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
            find_processes(**{name: 0})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="devices is 3, but this machine has 2 GPUs"):
        find_processes(3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="Apple's GPU is one device"):
        find_processes(2)


def test_an_interactive_session_cannot_be_started_again(monkeypatch):
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(ConfigError, match="several devices need a script"):
        start(Processes(2))
