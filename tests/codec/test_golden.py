"""Files written once decode to the tokens they were made of, and are written the same today.

`pytest tests/codec/test_golden.py --regenerate-golden` rewrites them: for a new format version, not to mend a
failure.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from codec import small
from hybridvq.codec import CONTEXTUAL, STATIC, Header, Tables, TokenCoder, header_of, read, write

FOLDER = Path(__file__).parents[1] / "golden"
CASES = {  # K, L, S, mode, height, width
    "static": (16, 4, 1, STATIC, 33, 48),
    "contextual": (16, 4, 1, CONTEXTUAL, 33, 48),
    "codes-alone": (300, None, 1, CONTEXTUAL, 40, 21),
    "stages": (64, 8, 3, CONTEXTUAL, 24, 37),
    "pieces": (1024, 2, 1, STATIC, 140, 144),  # more positions than are coded together
    "one-position": (1024, 8, 1, CONTEXTUAL, 1, 1),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def tables_and_header(case: str) -> tuple[Tables, Header]:
    k, levels, stages, mode, height, width = CASES[case]
    tables = small.tables(k, levels, stages, dim=5, width=24)
    return tables, header_of(tables, height, width, 4, mode=mode)


def encoded(case: str, codes: np.ndarray, levels: np.ndarray | None) -> bytes:
    tables, header = tables_and_header(case)
    return write(header, TokenCoder(tables, header.mode).encode(codes, levels))


@pytest.fixture
def tokens(case, request):
    """The pinned codes and levels; made from integer seeds where the golden files are to be rewritten."""
    path = FOLDER / f"{case}.json"
    if request.config.getoption("--regenerate-golden"):
        k, levels, stages, *_ = CASES[case]
        made = small.tokens(*tables_and_header(case)[1].grid, k, levels, stages)
        FOLDER.mkdir(exist_ok=True)
        pinned = dict(zip(("codes", "levels"), (None if part is None else part.tolist() for part in made), strict=True))
        path.write_text(json.dumps(pinned) + "\n")
        (FOLDER / f"{case}.hvq").write_bytes(encoded(case, *made))
    pinned = json.loads(path.read_text())
    return tuple(None if pinned[name] is None else np.array(pinned[name]) for name in ("codes", "levels"))


def test_golden_files_decode_to_the_same_tokens(case, tokens):
    tables, expected = tables_and_header(case)
    header, streams = read((FOLDER / f"{case}.hvq").read_bytes())
    assert header == expected
    for part, pinned in zip(TokenCoder(tables, header.mode).decode(streams, header.grid), tokens, strict=True):
        np.testing.assert_array_equal(part, pinned)


def test_golden_tokens_encode_to_the_same_bytes(case, tokens):
    assert encoded(case, *tokens) == (FOLDER / f"{case}.hvq").read_bytes()
