"""Token spaces and priors small enough to enumerate."""

import itertools

import torch

from hybridvq.priors import build_prior
from hybridvq.quantizers import Tokens, TokenSpace

SMALL = {"static": {}, "pixelcnn": {"width": 8, "layers": 4}, "transformer": {"width": 16, "layers": 2, "heads": 2}}
SMALL["masked"] = SMALL["transformer"]
HEADS = {"none": [None], "levels": ["categorical", "gaussian", "mixture"], "float": ["gaussian", "mixture"]}
CASES = [
    (name, stages, kind, head)
    for name in SMALL
    if name != "masked"  # its score is no chain over positions
    for stages in ((1,) if name == "pixelcnn" else (1, 2))
    for kind in HEADS
    for head in HEADS[kind]
    if (name, head) != ("static", "mixture")
]


def space(kind="levels", stages=1, k=5, levels=3, dim=4):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(stages, levels, generator=generator).sort(1).values * 3 + 1 if kind == "levels" else None
    return TokenSpace(k, stages, kind, values, torch.randn(k, dim, generator=generator))


def tokens(of, n=3, shape=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (n, of.stages, *shape)
    codes = torch.randint(of.codebook_size, (2, *size), generator=generator).amin(0)  # low codes are more frequent
    if of.gain == "none":
        return Tokens(codes=codes)
    if of.gain == "levels":
        return Tokens(codes=codes, gains=torch.randint(of.levels, size, generator=generator))
    return Tokens(codes=codes, gains=torch.randn(size, generator=generator) * 3 + 1)


def prior(name, of, shape=(3, 4), classes=None, head=None, **options):
    """A prior that is far from uniform: every weight is moved, or fitted to random tokens."""
    torch.manual_seed(0)
    options = SMALL[name] | options | ({} if head is None else {"gain": head})
    made = build_prior(name, of, shape, classes, options)
    sample = tokens(of, 8, seed=1)
    if name == "static":
        made.fit([sample])
        return made.eval()
    if sample.gains is not None:
        made.fit_scale(sample.gains)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return made.eval()


def every(of, shape):
    """All grids of tokens of a space without floats, as one batch."""
    places = of.stages * shape[0] * shape[1]
    symbols = itertools.product(range(of.codebook_size * (of.levels or 1)), repeat=places)
    pairs = torch.tensor(list(symbols)).view(-1, of.stages, *shape)
    return Tokens(codes=pairs // (of.levels or 1), gains=pairs % of.levels if of.levels else None)
