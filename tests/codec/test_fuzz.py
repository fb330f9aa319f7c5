"""A short run of benchmarks/stress/fuzz.py, and the proof that it would notice."""

import signal

import pytest
from benchmarks.stress import fuzz


@pytest.fixture(autouse=True)
def alarm():
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, before)


def test_a_few_hundred_files():
    result = fuzz.fuzz(420, seed=1)
    assert result["bad"] == []
    assert result["memory_mib"] < fuzz.LIMIT_MIB
    assert {kind: sum(counts.values()) for kind, counts in result["counts"].items()} == dict.fromkeys(fuzz.KINDS, 60)
    assert result["counts"]["forged header"]["some tokens"] > 0


def test_it_would_notice_wrong_tokens(monkeypatch):
    """A reader that does not look at the checksum lets flipped bits through."""
    originals = fuzz.make_originals(0)
    flips = [original.file[:-9] + bytes([original.file[-9] ^ 1]) + original.file[-8:] for original in originals]
    assert {fuzz.guarded(flip, "flipped", originals) for flip in flips} == {"refused"}
    monkeypatch.setattr("hybridvq.codec.format.checksum", lambda body: flips[0][-8:])
    assert fuzz.guarded(flips[0], "flipped", originals) == "WRONG TOKENS"


def test_it_would_notice_crashes_and_hangs(monkeypatch):
    def crash(*_, **__):
        raise IndexError("out of range")

    def hang(*_, **__):
        while True:
            pass

    signal.signal(signal.SIGALRM, fuzz.ring)
    monkeypatch.setattr(fuzz, "LIMIT_SECONDS", 0.01)
    monkeypatch.setattr(fuzz, "read", crash)
    assert fuzz.guarded(b"", "random", []) == "CRASH IndexError: out of range"
    monkeypatch.setattr(fuzz, "read", hang)
    assert fuzz.guarded(b"", "random", []) == "HANG"
