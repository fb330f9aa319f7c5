"""Files that are whole or not there, and folders that one process at a time writes."""

import errno
import multiprocessing
import os
import signal
import threading

import pytest

import hybridvq.writing as writing
from hybridvq import ConfigError
from hybridvq.writing import LOCK, PARTIAL, remove_partial, sole_writer, whole_folder, write_whole

OLD, NEW = b"old" * 100_000, b"new" * 100_000


def test_readers_and_other_writers_meet_whole_files(tmp_path):
    """Several write one path while others read it; each reader finds all that one of them wrote."""
    path, contents, failures = tmp_path / "file", [bytes([i]) * 300_000 for i in range(4)], []
    write_whole(path, contents[0])

    def repeat(act):
        try:
            for _ in range(30):
                act()
        except BaseException as error:
            failures.append(error)

    def read():
        assert path.read_bytes() in contents

    acts = [read, read, *(lambda content=content: write_whole(path, content) for content in contents)]
    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_between_open_and_replace_does_not_disturb_another(tmp_path, monkeypatch):
    path, sync = tmp_path / "file", os.fsync

    def write_another(file):
        monkeypatch.setattr(os, "fsync", sync)
        write_whole(path, OLD)
        assert path.read_bytes() == OLD
        sync(file)

    monkeypatch.setattr(os, "fsync", write_another)
    write_whole(path, NEW)
    assert path.read_bytes() == NEW
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_as_long_as_the_system_takes(tmp_path):
    path = tmp_path / ("é" * 127 + "x")
    write_whole(path, NEW)
    assert path.read_bytes() == NEW
    with whole_folder(tmp_path / ("é" * 127 + "y")) as folder:
        write_whole(folder / path.name, OLD)
    assert (tmp_path / ("é" * 127 + "y") / path.name).read_bytes() == OLD


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_whole(tmp_path / "whole", b"")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_what_was_there_stays_after_a_failure(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    path = tmp_path / "file"
    write_whole(path, OLD)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)) as caught:
        write_whole(path, NEW)
    assert getattr(caught.value, "filename", str(path)) == str(path)
    with pytest.raises(type(error)), whole_folder(tmp_path / "folder") as folder:
        write_whole(folder / "half", NEW)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / PARTIAL.format("a")).write_bytes(NEW)
    (tmp_path / PARTIAL.format("b") / "c").mkdir(parents=True)
    (tmp_path / "mine.partial").write_bytes(OLD)
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.partial"]


def hold(folder, begun):
    with sole_writer(folder):
        begun.set()
        signal.pause()


def test_the_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    context = multiprocessing.get_context("forkserver")
    begun = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", begun))
    process.start()
    assert begun.wait(60)
    with pytest.raises(ConfigError, match=f"{tmp_path}/run is being written by another process; wait until that ends"):
        sole_writer(tmp_path / "run").__enter__()
    process.kill()
    process.join(60)
    with sole_writer(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).exists()
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_in_which_nothing_was_written_goes(tmp_path):
    with sole_writer(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    with sole_writer(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").write_bytes(b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "file"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"file/x cannot be written \(Not a directory\); choose another --out"):
        sole_writer(tmp_path / "file" / "x").__enter__()


def test_a_writer_that_waited_for_a_removed_lock_is_refused_or_alone(tmp_path, monkeypatch):
    """The first removes the file of its lock; whoever had opened it before does not take that for a lock."""
    first = sole_writer(tmp_path)
    first.__enter__()
    opened = os.open(tmp_path / LOCK, os.O_RDWR)
    first.__exit__(None, None, None)
    with sole_writer(tmp_path):
        assert os.fstat(opened).st_nlink == 0
        with pytest.raises(ConfigError, match="is being written"):
            sole_writer(tmp_path).__enter__()
    os.close(opened)
    assert writing.LOCK not in os.listdir(tmp_path)
