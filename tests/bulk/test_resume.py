"""Killed at any moment, in any process: every image once, and no finished shard made again."""

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

import tiny
from bulk.conftest import save_model
from hybridvq import ConfigError, HybridVQError, load_tokens, open_images, tokenize
from hybridvq.bulk import cluster, shards
from hybridvq.writing import PARTIAL, sole_writer

SHARD = {"shard_images": 50, "batch_size": 16}
PATIENCE = 300  # seconds that a process is waited for, on however busy a machine


def stamps(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.parquet")}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(model, images, tmp_path_factory):
    """All tokens of the images, made by one worker without interruption."""
    out = tmp_path_factory.mktemp("whole")
    tokenize(model, images, out, workers=1, **SHARD)
    assert len(stamps(out)) > 30
    return out


def tokenize_slowly(model, images, out, begun):
    torch.set_num_threads(1)
    begun.set()
    tokenize(model, images, out, workers=1, **SHARD)


def test_killed_at_any_moment_every_image_is_there_once(model, images, whole, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hybridvq.bulk", "tiny"])
    moments, made = random.Random(0), {}
    for _ in range(4):
        begun = context.Event()
        process = context.Process(target=tokenize_slowly, args=(model, images, tmp_path, begun))
        process.start()
        assert begun.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while len(stamps(tmp_path)) == len(made):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.join(PATIENCE)
        after = stamps(tmp_path)
        assert made.items() <= after.items(), "a finished shard was touched"
        made = after
    assert 4 <= len(made) < len(stamps(whole))
    summary = tokenize(model, images, tmp_path, workers=1, **SHARD)
    assert summary.made == summary.shards - len(made)
    assert made.items() <= stamps(tmp_path).items()
    assert contents(tmp_path) == contents(whole)
    assert tokenize(model, images, tmp_path, workers=1, **SHARD).made == 0
    assert len(load_tokens(tmp_path)) == len(images)


def test_two_workers_one_of_which_dies(model, images, whole, tmp_path):
    """The call says so and continues where it stopped, to the same bytes as one worker's."""

    def kill_one():
        while not stamps(tmp_path):
            time.sleep(0.002)
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(HybridVQError, match=r"a worker process was killed, .* the same command continues"):
        tokenize(model, images, tmp_path, workers=2, **SHARD)
    killer.join()
    made = stamps(tmp_path)
    assert 0 < len(made) < len(stamps(whole))
    tokenize(model, images, tmp_path, workers=2, **SHARD)
    assert made.items() <= stamps(tmp_path).items()
    assert contents(tmp_path) == contents(whole)


def command(model, out, *more):
    words = [sys.executable, "-m", "hybridvq.cli", "tokenize", model, "--out", out, "--size", tiny.SIZE, *more]
    return subprocess.Popen(
        [str(word) for word in (*words, "--shard-images", 50, "--workers", 2)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )


def wait_for_shards(out):
    deadline = time.monotonic() + PATIENCE
    while not list(out.glob("*.parquet")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_and_the_end_of_the_parent_end_the_workers(model, tmp_path):
    interrupted = command(model, tmp_path)
    wait_for_shards(tmp_path)
    os.killpg(interrupted.pid, signal.SIGINT)
    _, err = interrupted.communicate(timeout=PATIENCE)
    assert interrupted.returncode == 130
    assert err == "hybridvq: interrupted; the same command continues from the finished shards\n"

    shutil.rmtree(tmp_path)
    killed = command(model, tmp_path)
    wait_for_shards(tmp_path)
    killed.kill()
    killed.communicate(timeout=PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while alive(killed.pid):
        assert time.monotonic() < deadline, "its workers live on"
        time.sleep(0.05)


def alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_second_call_in_one_folder_is_refused(model, images, tmp_path):
    held = sole_writer(tmp_path)
    with held, pytest.raises(ConfigError, match="is being written by another process; wait until that ends"):
        tokenize(model, images, tmp_path, workers=1, **SHARD)
    assert list(tmp_path.iterdir()) == []


def test_damaged_shards_are_made_again(model, images, whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    names = sorted(stamps(whole))
    (tmp_path / names[3]).write_bytes((whole / names[3]).read_bytes()[:-100])
    (tmp_path / names[5]).write_bytes((whole / names[6]).read_bytes()[:0])
    (tmp_path / names[7]).unlink()
    (tmp_path / PARTIAL.format("a")).write_bytes(b"PAR1")
    assert tokenize(model, images, tmp_path, workers=1, **SHARD).made == 3
    assert contents(tmp_path) == contents(whole)


def test_ray_makes_the_same_shards(model, whole, tmp_path, monkeypatch):
    """In a process of its own, since Ray leaves warnings on open files behind."""
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for name in sorted(stamps(whole))[2:9]:
        (tmp_path / name).unlink()
    kept = stamps(tmp_path)
    done = command(model, tmp_path, "--split", "test", "--batch-size", 16, "--engine", "ray")
    out, err = done.communicate(timeout=PATIENCE)
    assert done.returncode == 0, err
    assert f"{len(stamps(whole))} shards, 7 of them made now" in out
    assert kept.items() <= stamps(tmp_path).items()
    assert contents(tmp_path) == contents(whole)


def test_a_failure_under_ray_is_the_same_sentence(model, images, whole, tmp_path):
    (tmp_path / "file").write_text("")
    manifest = load_tokens(whole).manifest
    actor = cluster.Actor(shards.Job(model, images, tmp_path / "file", manifest, 16), "cpu")
    with pytest.raises(
        ConfigError, match=r"test-00002-of-\d+\.parquet cannot be written .* the same command continues"
    ):
        list(cluster.outcome(actor({"shard": [2]})))


def test_without_ray(model, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(ConfigError, match=r"ray, which is not installed; pip install '.+\[ray\]'"):
        tokenize(model, images, tmp_path, engine="ray")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model", r"another model\.sha256, [0-9a-f]{12} and not [0-9a-f]{12}"),
        ("split", r"another data\.fingerprint"),
        ("size", r"another data\.fingerprint"),
        ("shard_images", "another shard_images, 50 and not 40"),
    ],
)
def test_a_folder_holds_one_set_of_tokens(model, images, whole, tmp_path, change, message):
    before = stamps(whole)
    options = SHARD | ({"shard_images": 40} if change == "shard_images" else {})
    if change == "model":
        model = save_model(tmp_path / "other", "gain-shape", seed=1)
    if change in ("split", "size"):
        images = open_images("photos", "train" if change == "split" else "test", size=32 if change == "size" else 16)
    with pytest.raises(ConfigError, match=rf"holds tokens made with {message}.*; choose another --out, or delete it"):
        tokenize(model, images, whole, **options)
    assert stamps(whole) == before


def test_files_of_others_are_left_alone(model, images, tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"a\.parquet is no shard of these tokens; choose another --out"):
        tokenize(model, images, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


@pytest.mark.parametrize("name", ["workers", "shard_images", "batch_size"])
def test_numbers_out_of_range(model, images, tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name} is 0; it must be at least 1"):
        tokenize(model, images, tmp_path / "out", **{name: 0})
    assert not (tmp_path / "out").exists()
