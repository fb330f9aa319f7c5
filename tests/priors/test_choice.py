import re

import pytest
import torch

from hybridvq import ConfigError
from hybridvq.priors import Choice

LOGITS = torch.tensor([0.1, 0.4, 0.2, 0.3]).log()


def shares(choice, n=20_000):
    u = (torch.arange(n) + 0.5) / n
    return torch.bincount(choice.index(LOGITS.expand(n, -1), u), minlength=4) / n


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [0.1, 0.4, 0.2, 0.3]),
        (Choice(temperature=0.5), [1 / 30, 16 / 30, 4 / 30, 9 / 30]),
        (Choice(temperature=0), [0, 1, 0, 0]),
        (Choice(temperature=1e-30), [0, 1, 0, 0]),
        (Choice(temperature=1e6), [0.25] * 4),
        (Choice(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (Choice(top_k=9), [0.1, 0.4, 0.2, 0.3]),
        (Choice(top_k=1), [0, 1, 0, 0]),
        (Choice(top_p=0.65), [0, 4 / 7, 0, 3 / 7]),
        (Choice(top_p=0.75), [0, 4 / 9, 2 / 9, 3 / 9]),
        (Choice(top_p=0.01), [0, 1, 0, 0]),
        (Choice(top_k=3, top_p=0.5), [0, 4 / 7, 0, 3 / 7]),
    ],
    ids=str,
)
def test_shares_of_what_is_drawn(choice, expected):
    torch.testing.assert_close(shares(choice), torch.tensor(expected, dtype=torch.float32), atol=2e-4, rtol=0)


def test_the_ends_of_the_unit_interval_meet_no_impossible_symbol():
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf, -torch.inf]]).expand(3, -1)
    assert Choice().index(logits, torch.tensor([0.0, 1 - 2**-24, 1.0])).tolist() == [1, 2, 2]


def test_the_top_k_are_k_even_where_they_are_equally_likely():
    u = (torch.arange(100) + 0.5) / 100
    drawn = Choice(top_k=2).index(torch.zeros(100, 5), u)
    assert drawn.bincount(minlength=5).tolist() == [50, 50, 0, 0, 0]


def test_guidance_extrapolates():
    conditional, unconditional = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 3.0]])
    assert Choice(guidance=3).guide([conditional, unconditional]).tolist() == [[2.0, 0.0]]
    assert Choice(guidance=0).guide([conditional, unconditional]).tolist() == [[0.5, 3.0]]
    assert Choice().guide([conditional]) is conditional


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("top_k", 0),
        ("top_p", 0.0), ("top_p", 1.1), ("top_p", float("nan")), ("guidance", -1.0), ("guidance", float("inf")),
        ("temperature", 1e308), ("guidance", 1e308), ("guidance", float("nan")), ("top_k", 2.5), ("top_k", -1),
    ],
)  # fmt: skip
def test_nonsense_is_named(name, value):
    with pytest.raises(ConfigError, match=re.escape(f"{name} is {value}; ")):
        Choice(**{name: value})
