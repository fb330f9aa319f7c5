"""A file of codes and coefficients written once decodes to the same, whole and cut, and is written the same today.

`--regenerate-golden` rewrites it, as in test_golden.py.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from codec import small
from hybridvq.codec import TokenCoder, hybrid, layered, truncate
from hybridvq.codec.coefficients import encode_group

FOLDER = Path(__file__).parents[1] / "golden"
HEADER = layered.layered_header(small.hybrid_tables(), 75, 130, 8, 120)


class Pinned:
    """Coefficients where classes are coded, one of them too large for a symbol."""

    size = HEADER.size

    def __init__(self, r: np.ndarray) -> None:
        self.r = r

    def __call__(self, channels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return np.where(classes < 12, 0, self.r[channels]).astype(np.int16)


def encoded(codes: np.ndarray, r: np.ndarray) -> bytes:
    tables = small.hybrid_tables()
    assert tables.scales is not None
    hidden, source = tables.scales.hidden(codes), Pinned(r)
    coded = [encode_group(tables.scales, hidden, HEADER.step, group, source) for group in range(2)]
    return layered.write(HEADER, [TokenCoder(tables).encode_together(codes), *coded])


@pytest.fixture
def pinned(request):
    path = FOLDER / "hybrid.json"
    if request.config.getoption("--regenerate-golden"):
        codes = small.integers(7, 0, 16, (2, *HEADER.codes.grid))
        r = small.integers(8, -9, 10, (3, *HEADER.size)) ** 3 // 7
        data = encoded(codes, r)
        (FOLDER / "hybrid.hvq").write_bytes(data)
        _, stream, streams = layered.read(data)
        layers = hybrid.decode(HEADER, stream, streams, small.hybrid_tables())
        path.write_text(json.dumps({"codes": codes.tolist(), "coefficients": layers.rest.tolist()}) + "\n")
    pinned = json.loads(path.read_text())
    return np.array(pinned["codes"]), np.array(pinned["coefficients"]), (FOLDER / "hybrid.hvq").read_bytes()


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_golden_files_decode_to_the_same(pinned, kept):
    codes, coefficients, data = pinned
    header, stream, streams = layered.read(truncate(data, kept) + b"cut off"[: 7 * (kept < 2)])
    layered.check_model(header, small.hybrid_tables(), "this file")
    layers = hybrid.decode(header, stream, streams, small.hybrid_tables())
    np.testing.assert_array_equal(layers.codes, codes)
    there = np.where(np.array([0, 1, 1])[:, None, None] < kept, coefficients, 0)
    np.testing.assert_array_equal(there, 0 if layers.rest is None else layers.rest)


def test_golden_tokens_encode_to_the_same_bytes(pinned):
    codes, coefficients, data = pinned
    assert encoded(codes, coefficients) == data
    assert np.abs(coefficients).max() > 63
    assert 0.1 < (coefficients == 0).mean() < 0.9
