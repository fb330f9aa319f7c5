"""The prior that draws in passes: what it reads, what its score means, and which codes a pass keeps."""

import itertools
import math

import pytest
import torch
from scipy import stats

from hybridvq import ConfigError, ShapeError
from hybridvq.priors import PRIORS, MaskedPrior, bits_per_position, build_prior
from hybridvq.priors.masked import hidden_after
from hybridvq.quantizers import Tokens
from priors.spaces import HEADS, every, prior, space, tokens

CASES = [(stages, kind, head) for stages in (1, 2) for kind in HEADS for head in HEADS[kind]]
FINITE = [case for case in CASES if case[1] != "float"]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("stages", "kind", "head"), CASES)
@torch.no_grad()
def test_a_context_reads_all_that_is_not_hidden_and_nothing_that_is(stages, kind, head):
    of = space(kind, stages)
    made, given = prior("masked", of, head=head), tokens(of, 1)
    hidden = torch.rand(given.codes.shape, generator=seeded()) < 0.5
    before = made.context(given, None, hidden)
    for place in itertools.product(*map(range, given.codes.shape)):
        for part in given.parts:
            values = given.parts[part].clone()
            size = {"codes": of.codebook_size, "gains": of.levels}[part]
            values[place] = values[place] + 0.7 if size is None else (values[place] + 1) % size
            moved = (made.context(Tokens(**given.parts | {part: values}), None, hidden) != before).any(-1)
            assert moved.all() if not hidden[place] else not moved.any()


@pytest.mark.parametrize("total", [1, 2, 7, 16, 64, 100])
@pytest.mark.parametrize("passes", [1, 2, 12, 16, 100])
def test_what_is_hidden_after_each_pass(total, passes):
    """As many codes m as still satisfy arccos(m / total) >= pi i / 2 N; each pass keeps one at least."""
    n, found, expected = min(total, passes), hidden_after(total, passes), []
    for i in range(1, n + 1):
        below = range(1, (expected or [total])[-1])
        expected.append(sum(math.acos(m / total) >= math.pi / 2 * i / n - 1e-6 for m in below))
    assert found == expected
    assert found[-1] == 0
    assert all(more > less for more, less in itertools.pairwise([total, *found]))


@torch.no_grad()
def log_prob_in_order(made, given, order, label=None):
    """log p of grids drawn code by code in one order, from contexts alone."""
    hidden, total = torch.ones_like(given.codes, dtype=torch.bool), 0
    for s, i, j in order:
        context = made.context(given, label, hidden)[:, s, i, j]
        k = given.codes[:, s, i, j]
        total = total + made.code_logits(context, s).log_softmax(-1).gather(1, k[:, None])[:, 0]
        if given.gains is not None:
            total = total + made.gain_head.log_prob(made.gain_parameters(context, k, s), given.gains[:, s, i, j], s)
        hidden[:, s, i, j] = False
    return total


def in_all_orders(made, given, stages, shape):
    """(orders, B) log p of grids, in every order."""
    places = list(itertools.product(range(stages), *map(range, shape)))
    return torch.stack([log_prob_in_order(made, given, order) for order in itertools.permutations(places)]).double()


@pytest.mark.parametrize(("stages", "kind", "head"), FINITE)
def test_frequencies_are_those_of_random_orders(stages, kind, head):
    """With one code a pass and nothing but noise, all orders are equally likely."""
    of, n = space(kind, stages, k=3, levels=2), 6000
    shape = (1, 3) if (stages, kind) == (1, "none") else (1, 2 // stages)
    made = prior("masked", of, shape, head=head)
    grids = every(of, shape)
    expected = in_all_orders(made, grids, stages, shape).exp().mean(0)
    assert expected.sum().item() == pytest.approx(1, abs=1e-5)
    drawn = made.sample(n, shape, noise=1e6, generator=seeded())
    assert fits(drawn, expected, of)


def fits(drawn, expected, of):
    symbols = drawn.codes.flatten(1) if drawn.gains is None else (drawn.codes * 2 + drawn.gains).flatten(1)
    base = of.codebook_size * (of.levels or 1)
    places = base ** torch.arange(symbols.shape[1] - 1, -1, -1)
    observed = torch.bincount((symbols * places).sum(1), minlength=len(expected)).double()
    expected = expected * len(symbols)
    often = expected > 5
    observed, expected = [torch.cat([x[often], x[~often].sum()[None] + 1e-9]) for x in (observed, expected)]
    return stats.chisquare(observed.numpy(), (expected * observed.sum() / expected.sum()).numpy()).pvalue > 1e-3


@torch.no_grad()
def test_one_pass_draws_every_code_by_itself():
    of, shape = space("none", k=3), (1, 3)
    made = prior("masked", of, shape)
    p = made.code_logits(made.context(every(of, shape), None)[0, 0, 0], 0).softmax(-1).double()
    assert fits(made.sample(6000, shape, passes=1, generator=seeded()), torch.einsum("a,b,c->abc", *p).flatten(), of)


@torch.no_grad()
def test_without_noise_a_pass_keeps_the_surest():
    """Against the same written out: at temperature 0 each pass takes the likeliest codes, and keeps the likeliest."""
    of = space(k=9)
    made, given = prior("masked", of, classes=3), tokens(of, 5)
    label, keep = torch.tensor([0, 1, 2, 0, 1]), torch.zeros(3, 4, dtype=torch.bool)
    keep[1] = True
    drawn = made.sample(5, (3, 4), label, 0, guidance=3.0, given=given, keep=keep, passes=4, noise=0)
    for row in range(5):
        codes, gains = (torch.where(keep, part[row : row + 1], 0) for part in (given.codes, given.gains))
        hidden = ~keep.expand(1, 1, 3, 4)
        for left in (7, 5, 3, 0):  # floor(8 cos(pi / 8)), ...
            read = Tokens(codes=codes, gains=gains)
            contexts = [made.context(read, which, hidden) for which in (label[row : row + 1], None)]
            with_label, without = (made.code_logits(context, 0) for context in contexts)
            p, k = (without + 3 * (with_label - without)).softmax(-1).max(-1)
            parameters = [made.gain_parameters(context, k, 0) for context in contexts]
            g = (parameters[1] + 3 * (parameters[0] - parameters[1])).argmax(-1)
            codes, gains = torch.where(hidden, k, codes), torch.where(hidden, g, gains)
            surest = p.masked_fill(~hidden, 2).flatten().sort(descending=True, stable=True).indices
            hidden = torch.zeros(12, dtype=torch.bool).index_fill(0, surest[12 - left :], True).view(1, 1, 3, 4)
        assert torch.equal(drawn.codes[row], codes[0])
        assert torch.equal(drawn.gains[row], gains[0])


@pytest.mark.parametrize("kind", ["none", "levels"])
def test_the_score_estimates_the_bound_of_random_orders(kind):
    of, shape = space(kind, k=4), (1, 3)
    made, given = prior("masked", of, shape), tokens(of, 4, shape)
    orders = in_all_orders(made, given, 1, shape)
    many = Tokens(**{name: part.repeat(3000, 1, 1, 1) for name, part in given.parts.items()})
    estimates = made.log_prob(many).detach().view(-1, 4).double()
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - orders.mean(0)).abs() < 4 * error).all()
    assert (orders.mean(0) <= orders.exp().mean(0).log()).all()  # no more than log p of the mixture of orders
    bits = bits_per_position(made, [(many, None)])
    assert bits.total == pytest.approx(-orders.mean().item() / 3 / math.log(2), abs=4 * error.mean().item())
    assert bits == bits_per_position(made, [(many, None)])  # what is hidden does not change


def test_most_is_hidden_in_training():
    made = prior("masked", space(), (8, 8)).train()
    torch.manual_seed(0)
    hidden = made.hide(torch.zeros(20000, 1, 8, 8)).flatten(1).double()
    shares = hidden.mean(1)
    assert shares.min() >= 1 / 64
    # P(cos(pi u / 2) <= r) = 1 - 2 / pi arccos r, rounded up to whole codes
    for r in (0.25, 0.5, 0.75):
        assert (shares <= r).double().mean().item() == pytest.approx(1 - 2 / math.pi * math.acos(r), abs=0.015)
    assert hidden.mean(0).std() < 0.01  # no place more than another
    even = made.eval().hide(torch.zeros(64, 1, 8, 8)).flatten(1).sum(1)
    assert even.sort().values.tolist() == list(range(1, 65))


def test_what_never_differs_is_drawn_alike_in_two_passes():
    """Two codes that are always the same: one pass draws them by themselves, two passes alike."""
    of = space("none", k=2)
    torch.manual_seed(0)
    made = build_prior("masked", of, (1, 2), options={"width": 16, "layers": 2, "heads": 2})
    optimizer = torch.optim.Adam(made.parameters(), 2e-2)
    codes = torch.tensor([0, 1] * 16).view(-1, 1, 1, 1).expand(-1, 1, 1, 2)
    for _ in range(80):
        optimizer.zero_grad()
        (-made.log_prob(Tokens(codes=codes)).mean()).backward()
        optimizer.step()
    alike = {}
    for passes in (2, 1):
        codes = made.eval().sample(1000, (1, 2), passes=passes, generator=seeded()).codes.flatten(1)
        alike[passes] = (codes[:, 0] == codes[:, 1]).double().mean().item()
        ones = codes.double().mean().item()
        by_chance = ones**2 + (1 - ones) ** 2
        assert by_chance < 0.7
    assert alike[2] > 0.95
    assert alike[1] == pytest.approx(by_chance, abs=0.1)


def test_progress_is_told():
    of = space()
    told = []
    prior("masked", of).sample(1, (3, 4), passes=5, progress=lambda *done: told.append(done))
    prior("transformer", of).sample(1, (3, 4), progress=lambda *done: told.append(done))
    assert told == [(i + 1, total) for total in (5, 12) for i in range(total)]


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "masked"])
@pytest.mark.parametrize("how", [{"passes": 8}, {"noise": 0.0}])
def test_priors_that_draw_one_code_after_another_have_no_passes(name, how):
    (key, value), *_ = how.items()
    with pytest.raises(ConfigError, match=f"{key} is {value}, but this prior draws one code after another; leave it"):
        prior(name, space()).sample(1, (3, 4), **how)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"passes": 0}, ConfigError, "passes is 0; it must be"),
        ({"noise": -1.0}, ConfigError, r"noise is -1\.0; it must be a number from 0"),
        ({"shape": (4, 4)}, ShapeError, "the grid is 4x4, and this prior was built for at most 3x4"),
    ],
)
def test_requests_that_make_no_sense(options, error, message):
    made = prior("masked", space())
    assert isinstance(made, MaskedPrior)
    with pytest.raises(error, match=message):
        made.sample(1, **{"shape": (3, 4)} | options)
