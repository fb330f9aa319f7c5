"""Tokens come back from their bytes, from any machine, at the cost that the tables say."""

import os
import subprocess
import sys

import constriction
import numpy as np
import pytest

from codec import small
from hybridvq.codec import CONTEXTUAL, STATIC, TokenCoder
from hybridvq.codec.coder import runs, wavefronts
from hybridvq.codec.integers import EXP2, LIMIT, SCALE, exact_product, softmax_counts, to_counts
from hybridvq.codec.tables import NEIGHBORS
from hybridvq.errors import CodecError

GRIDS = [(1, 1), (1, 9), (8, 1), (2, 3), (11, 7)]


@pytest.mark.parametrize("mode", [STATIC, CONTEXTUAL])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("k", "levels", "stages"), [(1, 2, 1), (2, None, 1), (16, 4, 1), (16, 2, 3), (300, 9, 2)])
def test_round_trip(k, levels, stages, grid, mode):
    coder = TokenCoder(small.tables(k, levels, stages), mode)
    codes, gains = small.tokens(*grid, k, levels, stages)
    streams = coder.encode(codes, gains)
    for present in range(1, stages + 1):
        back, back_gains = coder.decode(streams[:present], grid)
        assert back.dtype == np.int64
        np.testing.assert_array_equal(back, codes[:present])
        if levels:
            np.testing.assert_array_equal(back_gains, gains[:present])
        else:
            assert back_gains is None


def test_a_codebook_of_one_costs_nothing():
    coder = TokenCoder(small.tables(1, None))
    assert coder.encode(np.zeros((1, 5, 4), np.int64), None) == [b""]
    assert coder.decode([b""], (5, 4))[0].tolist() == np.zeros((1, 5, 4)).tolist()


@pytest.mark.parametrize("mode", [STATIC, CONTEXTUAL])
def test_the_cost_is_that_of_an_independent_model(mode):
    """-log2 of the softmax in floats, position by position, with the neighbors looked up one by one."""
    tables = small.tables(stages=2)
    codes, gains = small.tokens(6, 5, stages=2)
    expected = [sum(reference_bits(tables, codes, gains, s, mode)) for s in range(2)]
    np.testing.assert_allclose(TokenCoder(tables, mode).cost_bits(codes, gains), expected, rtol=0.003)


def reference_bits(tables, codes, gains, s, mode):
    stage = tables.of_stages[s]
    weights = {name: getattr(stage, name) / 1024 for name in ("near", "level_out", "joint", "code_out")}
    joint = stage.shares / stage.shares.sum()
    for y, x in np.ndindex(codes.shape[1:]):
        level, code = gains[s, y, x], codes[s, y, x]
        if mode == STATIC:
            yield -np.log2(joint[level, code])
            continue
        places = [(s, y + dy, x + dx) for dy, dx in NEIGHBORS] + [(t, y, x) for t in range(s)]
        context = np.concatenate([reference_features(tables, codes, gains, *place) for place in places])
        hidden = np.maximum(context @ weights["near"] + stage.near_bias / 256, 0)
        inner = np.maximum(hidden @ weights["joint"] + stage.joint_bias[level] / 256, 0)
        yield surprise(hidden @ weights["level_out"] + stage.level_bias / 256, level)
        yield surprise(inner @ weights["code_out"] + stage.code_bias / 256, code)


def reference_features(tables, codes, gains, s, y, x):
    stage = tables.of_stages[s]
    if not (0 <= y < codes.shape[1] and 0 <= x < codes.shape[2]):
        return np.zeros(stage.features)
    gain = gains[s, y, x]
    return np.concatenate(
        [stage.vectors[codes[s, y, x]].astype(float) * stage.gains[gain] / 65536, np.eye(len(stage.gains))[gain], [1]]
    )


def surprise(logits, symbol):
    """-log2 of the softmax to base 2, a 256th of which is shared out evenly."""
    powers = 2.0 ** (logits - logits.max())
    return -np.log2((1 - 1 / 256) * powers[symbol] / powers.sum() + 1 / 256 / len(logits))


@pytest.mark.parametrize("mode", [STATIC, CONTEXTUAL])
def test_files_are_as_long_as_the_cost(mode):
    coder = TokenCoder(small.tables(64, 8), mode)
    codes, gains = small.tokens(40, 50, 64, 8)
    ideal, real = coder.cost_bits(codes, gains)[0], 8 * len(coder.encode(codes, gains)[0])
    assert abs(real - ideal) < 0.002 * ideal + 32


def test_the_type_of_the_tokens_does_not_matter():
    coder, (codes, gains) = TokenCoder(small.tables()), small.tokens(9, 7)
    expected = coder.encode(codes, gains)
    for dtype in ("u1", ">i4", "<u2", ">i8"):
        assert coder.encode(codes.astype(dtype), np.asfortranarray(gains.astype(dtype))) == expected
        np.testing.assert_array_equal(coder.cost_bits(codes.astype(dtype), gains), coder.cost_bits(codes, gains))


def test_counts_sum_to_the_coder_s_own_scale():
    weights = small.integers(1, 0, 1000, (50, 37))
    weights[0] = 0
    weights[0, 5] = 1
    counts = to_counts(weights)
    assert (counts.sum(1) == SCALE - 37).all()
    assert counts.min() >= (SCALE >> 8) // 37
    np.testing.assert_allclose(counts[1:] / SCALE, (1 - 1 / 256) * weights[1:] / weights[1:].sum(1)[:, None], atol=2e-4)


def test_powers_of_two():
    np.testing.assert_array_equal(EXP2, np.floor(2.0 ** (20 - np.arange(20 * 256) / 256)))
    counts = softmax_counts(np.array([[0, 256, 512], [-(2**30), 0, 2**30]]))
    np.testing.assert_allclose(counts / SCALE, [[1 / 7, 2 / 7, 4 / 7], [0, 0, 1]], atol=4e-3)


def test_the_coder_uses_counts_without_rounding():
    """constriction against an exact model of its own: share (count + 1) / 2^24 of the range, for every symbol."""
    counts = to_counts(small.integers(3, 0, 10000, (1, 50)))
    family = constriction.stream.model.Categorical(perfect=False)
    below = 0
    for symbol, share in enumerate((counts[0] + 1).tolist()):
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(np.array([symbol], np.int32), family, counts.astype(np.float32))
        _, (lower, width) = encoder.pos()
        assert (lower, width) == (below * (2**64 - 1 >> 24), share * (2**64 - 1 >> 24))
        below += share
    assert below == SCALE


def test_float_products_of_integers_are_exact():
    a, b = (
        small.integers(seed, -LIMIT, LIMIT + 1, shape).astype(np.int16)
        for seed, shape in ((1, (9, 400)), (2, (400, 7)))
    )
    np.testing.assert_array_equal(exact_product(a, b), a.astype(np.int64) @ b.astype(np.int64))
    extreme = np.full((2, 5000), -LIMIT, np.int16)
    assert (exact_product(extreme, extreme.T) == 5000 * LIMIT**2).all()


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("grid", GRIDS)
def test_wavefronts_visit_neighbors_first(grid, most):
    visited = set()
    for y, x in wavefronts(*grid, most):
        assert 1 <= len(y) <= most
        front = set(zip(y.tolist(), x.tolist(), strict=True))
        for row, column in front:
            for dy, dx in NEIGHBORS:
                place = (row + dy, column + dx)
                assert place in visited or not (0 <= place[0] < grid[0] and 0 <= place[1] < grid[1])
        assert not front & visited
        visited |= front
    assert visited == set(np.ndindex(grid))
    assert [place for y, x in runs(*grid, most) for place in zip(y, x, strict=True)] == list(np.ndindex(grid))


def test_a_stage_and_what_follows_do_not_change_what_came_before():
    """A change at one position leaves all positions before it in the order with their cost, and the earlier stages."""
    coder = TokenCoder(small.tables(stages=2))
    codes, gains = small.tokens(5, 6, stages=2)
    changed = codes.copy()
    changed[1, 4, 5] = (changed[1, 4, 5] + 1) % 16
    before, after = coder.encode(codes, gains), coder.encode(changed, gains)
    assert before[0] == after[0]
    assert before[1][:-8] == after[1][: len(before[1]) - 8]


@pytest.mark.parametrize(
    ("codes", "levels", "message"),
    [
        (np.full((1, 2, 2), 16), np.zeros((1, 2, 2), int), "codes lie outside 0 to 15"),
        (np.zeros((1, 2, 2), int), np.full((1, 2, 2), -1), "levels lie outside 0 to 3"),
        (np.zeros((1, 2, 2), int), None, "4 gain levels"),
        (np.zeros((2, 2, 2), int), np.zeros((2, 2, 2), int), "shape"),
        (np.zeros((1, 2, 0), int), np.zeros((1, 2, 0), int), "shape"),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2), int), "float64"),
    ],
)
def test_tokens_of_another_model(codes, levels, message):
    coder = TokenCoder(small.tables())
    for function in (coder.encode, coder.cost_bits):
        with pytest.raises(CodecError, match=message):
            function(codes, levels)


def test_streams_of_other_tables():
    streams = TokenCoder(small.tables()).encode(*small.tokens(9, 9))
    with pytest.raises(CodecError, match="2 streams"):
        TokenCoder(small.tables()).decode(streams * 2, (9, 9))
    with pytest.raises(CodecError, match="cannot be decoded with these tables"):
        TokenCoder(small.tables()).decode(streams, (2, 2))


def test_static_streams_too_short_for_their_positions():
    """The tables know what the likeliest symbols cost; nothing is walked or allocated for more of them."""
    tables = small.tables()
    coder, least = TokenCoder(tables, STATIC), tables.static_bits(0).min() / 8
    for stream, grid in ((b"", (2**20, 2**20)), (bytes(100), (1, int(110 / least)))):
        with pytest.raises(CodecError, match="cannot be decoded with these tables"):
            coder.decode([stream], grid)


ENCODE = """
import sys
import numpy as np
from codec import small
from hybridvq.codec import CONTEXTUAL, STATIC, TokenCoder
for mode in (STATIC, CONTEXTUAL):
    coder = TokenCoder(small.tables(64, 8, 2, dim=5, width=40), mode)
    for stream in coder.encode(*small.tokens(12, 14, 64, 8, 2)):
        print(stream.hex())
"""


@pytest.mark.parametrize(("threads", "kernel"), [("4", ""), ("1", "Prescott"), ("1", "Nehalem")])
def test_other_threads_and_kernels_make_the_same_bytes(threads, kernel):
    """OpenBLAS adds the terms of a product in an order of its own for each kind of processor."""
    here = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([here, *sys.path]), "OMP_NUM_THREADS": threads}
    environment |= {"OPENBLAS_CORETYPE": kernel} if kernel else {}
    run = subprocess.run([sys.executable, "-c", ENCODE], env=environment, capture_output=True, text=True, check=True)
    expected = []
    for mode in (STATIC, CONTEXTUAL):
        coder = TokenCoder(small.tables(64, 8, 2, dim=5, width=40), mode)
        expected += [stream.hex() for stream in coder.encode(*small.tokens(12, 14, 64, 8, 2))]
    assert run.stdout.split() == expected
