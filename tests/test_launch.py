"""How many processes there are, from the command line, torchrun and SLURM."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch

from hybridvq import ConfigError
from hybridvq.errors import LostProcessError
from hybridvq.launch import Processes, adopt_step, find_processes, first_host, free_port, is_first, start
from hybridvq.training import processes

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
# What srun sets within an allocation of 8 tasks on 4 nodes, for a step of 6 on 3 of them.
SLURM = {
    "SLURM_JOB_ID": "91234", "SLURM_JOB_NAME": "interactive", "SLURM_NTASKS": "8", "SLURM_NNODES": "4",
    "SLURM_NODELIST": "gpu[07-09,12]", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "6", "SLURM_STEP_NUM_NODES": "3",
    "SLURM_STEP_NODELIST": "gpu[08-09,12]",
}  # fmt: skip
# What a script of sbatch and a shell of salloc find, which no srun started.
JOB = {name: value for name, value in SLURM.items() if "STEP" not in name}


@pytest.fixture(autouse=True)
def outside(monkeypatch):
    """No launcher around the tests themselves, and no GPU."""
    for name in (*TORCHRUN, *SLURM, "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.setenv(name, "")  # so that what is set in between goes too
        monkeypatch.delenv(name)
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
    assert not is_first()
    with pytest.raises(ConfigError, match="num_nodes is 2, but slurm started 3"):
        find_processes(num_nodes=2)
    environment({"SLURM_STEP_NUM_TASKS": "7"})
    with pytest.raises(ConfigError, match="SLURM started 7 tasks on 3 nodes; use --ntasks-per-node"):
        find_processes()


STEP_OF_ONE = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}


@pytest.mark.parametrize("variables", [JOB, JOB | STEP_OF_ONE, SLURM | {"SLURM_JOB_NAME": "bash"}])
def test_within_slurm_but_not_started_by_it(environment, variables):
    environment(variables | {"SLURM_PROCID": "0"})
    assert find_processes(2) == Processes(2, 1, 0, None)
    assert find_processes() == Processes(1, 1, 0, None)
    assert is_first()


def test_a_step_is_told_in_the_words_of_torchrun(environment):
    environment(SLURM)
    adopt_step()
    told = {"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "2"}
    told |= {"MASTER_ADDR": "gpu08", "MASTER_PORT": "17342"}
    assert {name: os.environ[name] for name in told} == told
    environment({"MASTER_ADDR": "mine", "MASTER_PORT": "29500"})
    adopt_step()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("mine", "29500")


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("127.0.0.1", "127.0.0.1"), ("host-1.net,b", "host-1.net"), ("gpu[7]", "gpu7"), ("a[01-03,9],b", "a01"),
        ("a[2,9]-ib", "a2-ib"), ("a b", "a"),
    ],
)  # fmt: skip
def test_the_first_of_slurms_hosts(names, first):
    assert first_host(names) == first


@pytest.mark.parametrize("name", [*TORCHRUN, *SLURM])
def test_variables_that_are_empty_are_not_there(environment, name):
    for variables in (TORCHRUN, JOB):
        environment({key: "" if key == name else value for key, value in variables.items()})
        found = find_processes()
        assert found.launcher in (None, "torchrun")
        assert is_first() == (found.rank == 0)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (TORCHRUN | {"RANK": "x"}, "the environment variable RANK is x; it must be a number"),
        (TORCHRUN | {"WORLD_SIZE": "-8"}, "WORLD_SIZE is -8; it must be a number from 0 on"),
        (TORCHRUN | {"RANK": "8"}, "RANK 8, WORLD_SIZE 8 and LOCAL_WORLD_SIZE 4 do not go together"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE 3 do not go together"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "0"}, "LOCAL_WORLD_SIZE 0 do not go together"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "six"}, "SLURM_STEP_NUM_TASKS is six"),
        (SLURM | {"SLURM_PROCID": ""}, "SLURM_PROCID is empty"),
    ],
)
def test_variables_that_cannot_be_used(environment, variables, message):
    environment(variables)
    with pytest.raises(ConfigError, match=message):
        find_processes()
    assert is_first(), "somebody must say so"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_come_are_not_waited_for_without_end(environment, monkeypatch, rank):
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=1))
    environment({"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"})
    environment({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())})
    with pytest.raises(
        LostProcessError, match=r"the 2 processes of this run did not meet within 1 seconds \("
    ) as caught:
        processes.meet(find_processes(), torch.device("cpu"))
    assert "\n" not in str(caught.value)
    assert not torch.distributed.is_initialized()


def test_a_process_that_goes_before_all_are_connected_is_not_waited_for_without_end(environment, monkeypatch):
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=1))
    port = free_port()
    environment({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"})
    environment({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    with ThreadPoolExecutor(1) as other:
        comes = other.submit(torch.distributed.TCPStore, "127.0.0.1", port, 2, False, timedelta(seconds=30))
        with pytest.raises(LostProcessError, match="did not meet within 1 seconds"):
            processes.meet(find_processes(), torch.device("cpu"))
        comes.result()
    assert not torch.distributed.is_initialized()


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
