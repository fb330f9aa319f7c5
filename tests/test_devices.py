"""One word for a device everywhere, and no more threads than the process has cores."""

import os
from contextlib import suppress

import pytest
import torch

from hybridvq import Codec, ConfigError, Tokenizer, evaluate, export_onnx, load_prior, load_tokenizer, sample, train
from hybridvq.app.models import load_models
from hybridvq.cli import COMMANDS, build_parser, main
from hybridvq.devices import find_device
from hybridvq.threads import available_cores, quota, threads_limited

COMPUTING = set(COMMANDS) - {"info", "models", "recipes"}


@pytest.fixture
def counts(monkeypatch):
    """How many devices of each kind the machine is said to have."""
    found = {"cpu": 1, "cuda": 0, "mps": 0}
    monkeypatch.setattr("hybridvq.devices.count_devices", lambda kind: found[torch.device(kind).type])
    return found


def test_auto_takes_the_first_of_cuda_metal_and_the_processor(counts):
    assert find_device() == find_device("auto") == torch.device("cpu")
    counts["mps"] = 1
    assert find_device() == torch.device("mps")
    counts["cuda"] = 2
    assert find_device() == torch.device("cuda")
    assert find_device("cuda:1") == find_device(torch.device("cuda", 1)) == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:2", "device is cuda:2, which this machine does not have; use cpu, cuda:0 to 1 or auto"),
        ("mps", "device is mps, which this machine does not have; use cpu, cuda:0 to 1 or auto"),
        ("cpu:3", "device is cpu:3, which this machine does not have; use cpu, cuda:0 to 1 or auto"),
        ("gpu", "device is 'gpu'; use cpu, cuda, cuda:1, mps or auto"),
        ("cuda:x", "device is 'cuda:x'; use cpu, cuda, cuda:1, mps or auto"),
        ("", "device is ''; use cpu, cuda, cuda:1, mps or auto"),
    ],
)
def test_a_device_that_is_not_there_is_one_sentence(device, message, counts):
    counts["cuda"] = 2
    with pytest.raises(ConfigError) as caught:
        find_device(device)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "load",
    [
        lambda device: load_tokenizer("photos-vq", device=device),
        lambda device: Tokenizer.from_pretrained("photos-vq", device=device),
        lambda device: Codec.load("photos-vq", device=device),
        lambda device: load_prior("cifar10-prior", device=device),
        lambda device: load_models("photos-gain-shape", "photos-vq", "cifar10-prior", "photos", device),
        lambda device: export_onnx("photos-vq", "never", device),
        lambda device: evaluate("photos-vq", device=device),
        lambda device: sample("cifar10-prior", device=device),
        lambda device: train("vector", out="never", device=device),
    ],
)
def test_device_means_the_same_in_every_function(load, counts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="device is cuda:7, which this machine does not have"):
        load("cuda:7")
    assert [*tmp_path.iterdir()] == []


def test_what_is_loaded_computes_on_its_device():
    for model in (load_tokenizer("photos-vq", device="cpu"), Codec.load("photos-vq", "cpu").tokenizer):
        assert {value.device.type for value in model.parameters()} == {"cpu"}
    assert load_tokenizer("photos-vq", device=torch.device("cpu")).encode(torch.zeros(1, 3, 8, 8)).codes.is_cpu


@pytest.mark.parametrize("command", sorted(COMPUTING))
def test_every_command_that_computes_takes_a_device(command):
    assert "--device" in build_parser([command])._subcommands_action.choices[command].format_help()


@pytest.mark.parametrize(
    "words",
    [
        "train --recipe vector",
        "evaluate photos-vq",
        "reconstruct photos-vq photos",
        "tokenize photos-vq",
        "train-prior photos-vq",
        "sample cifar10-prior",
        "fit-codec photos-vq --out own",
        "compress photos --model photos-vq",
        "compare --recipes vector",
        "app",
    ],
)
def test_a_wrong_device_on_the_command_line(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "--device", "cuda:99"]) == 2
    assert "device is cuda:99, which this machine does not have; use" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


# Threads


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_takes_threads(command):
    assert "--threads" in build_parser([command])._subcommands_action.choices[command].format_help()


def test_the_command_line_sets_threads_while_it_runs(monkeypatch):
    seen, before = [], torch.get_num_threads()
    monkeypatch.setattr(COMMANDS["models"], "run", lambda *_: seen.append(torch.get_num_threads()))
    assert main(["models", "--threads", "3"]) == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert main(["models"]) == 0
    assert seen == [3, before], "what OMP_NUM_THREADS says stays"
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("hybridvq.threads.available_cores", lambda: 5)
    assert main(["models"]) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert main(["models"]) == 0
    assert seen[2:] == [5, 2], "processes that train together share the cores"
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.setattr(COMMANDS["train"], "run", lambda *_: seen.append(torch.get_num_threads()))
    assert main(["train", "--devices", "4"]) == 0
    assert seen[4:] == [1], "also where the first of them is still to start the others"
    assert torch.get_num_threads() == before
    assert "OMP_NUM_THREADS" not in os.environ


def test_threads_below_one_are_refused(capsys):
    assert main(["models", "--threads", "0"]) == 2
    assert "threads is 0; it must be at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, 2**16),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2**16),
        ({"cpu.max": "junk"}, 2**16),
        ({}, 2**16),
    ],
)
def test_the_quota_of_a_control_group(files, cores, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert quota(tmp_path) == cores


def test_cores_are_those_the_process_is_bound_to(monkeypatch):
    monkeypatch.setattr("hybridvq.threads.quota", lambda _: 2**16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 9}, raising=False)
    assert available_cores() == 3
    monkeypatch.setattr("hybridvq.threads.quota", lambda _: 0.4)
    assert available_cores() == 1


def test_threads_end_with_what_they_were_set_for():
    before = torch.get_num_threads()
    with suppress(KeyError), threads_limited(2):
        assert torch.get_num_threads() == 2
        raise KeyError
    assert torch.get_num_threads() == before
