"""The paragraph on top of the page, computed from the numbers alone.

Every sentence that compares two errors states the bits of both.
"""

import math

from hybridvq.report.result import REFERENCE, RecipeRuns, Stat, width_text
from hybridvq.report.style import bits_text, significant

# Rounding the coefficient is called harmless while it adds no more than this share to the test MSE.
_HARMLESS = 0.05
# Two errors closer than this share are called the same.
_SAME = 0.01


def summary(recipes: list[RecipeRuns]) -> list[str]:
    """The sentences of the paragraph, in reading order; never empty."""
    measured = [r for r in recipes if _comparable(r)]
    tokenizers = [r for r in measured if r.group != REFERENCE]
    sentences = [_best(tokenizers)] if tokenizers else []
    sentences += _rounded(tokenizers)
    sentences += _cheapest(tokenizers)
    for group, opening in (("published", "As published"), ("healthy", "In the healthy setting")):
        before, after = _find(tokenizers, "vector", group), _find(tokenizers, "projected", group)
        if before and after:
            sentences.append(f"{opening}, {_change('projecting onto the code', before, after)}")
    before, after = _find(tokenizers, "vector", "published"), _find(tokenizers, "vector", "healthy")
    if before and after:
        change = _change("the healthy setting in place of the published one", before, after)
        sentences.append(f"For VQ-VAE, {change}{_codes(before, after)}")
    references = [r for r in measured if r.group == REFERENCE]
    if references:
        sentences.append(_floor(min(references, key=_mse)))
    unfinished = [f"“{r.title}”" for r in recipes if r not in measured]
    if unfinished:
        sentences.append(f"Not compared, because the error or bits of a seed are missing: {', '.join(unfinished)}.")
    return sentences + _caveats(measured)


def _best(tokenizers: list[RecipeRuns]) -> str:
    best = min(tokenizers, key=_mse)
    scores = (
        f"a test MSE of {significant(_mse(best))} (PSNR {significant(best.stat('test_psnr_db').mean)} dB) "
        f"at {_rate(best)}"
    )
    if len(tokenizers) == 1:
        return f"“{best.title}” reconstructs held-out images with {scores}."
    return f"Of the {len(tokenizers)} tokenizers trained, “{best.title}” reconstructs held-out images best: {scores}."


def _rounded(tokenizers: list[RecipeRuns]) -> list[str]:
    """The best recipe's error once its coefficient costs a finite number of bits, if that was measured."""
    if not tokenizers:
        return []
    best = min(tokenizers, key=_mse)
    entries = {bits: pair for bits, pair in best.rounded().items() if pair[0].complete}
    if not entries:
        return []
    harmless = [bits for bits, (mse, _) in entries.items() if mse.mean <= (1 + _HARMLESS) * _mse(best)]
    bits = min(harmless) if harmless else max(entries)
    mse, rate = entries[bits]
    left = f"rounded to {width_text(bits)}" if bits else width_text(bits)
    return [
        f"With its coefficient {left} after training, "
        f"its test MSE is {significant(mse.mean)} at {bits_text(rate.mean)} bits per position."
    ]


def _cheapest(tokenizers: list[RecipeRuns]) -> list[str]:
    """The best recipe at the fewest bits, if it is not the best of all."""
    if len(tokenizers) < 2:
        return []
    fewest = min(_bits(r) for r in tokenizers)
    cheapest = min((r for r in tokenizers if math.isclose(_bits(r), fewest)), key=_mse, default=None)
    if cheapest is None or cheapest is min(tokenizers, key=_mse):
        return []
    return [
        f"At the fewest bits, {bits_text(fewest)} per position, the best is “{cheapest.title}” "
        f"with a test MSE of {significant(_mse(cheapest))}."
    ]


def _find(recipes: list[RecipeRuns], family: str, group: str) -> RecipeRuns | None:
    """The plainest recipe of a family in a group: `vector-healthy` before `vector-healthy-4096`."""
    found = [r for r in recipes if r.group == group and r.name.split("-")[0] == family]
    return min(found, key=lambda r: len(r.name), default=None)


def _change(action: str, before: RecipeRuns, after: RecipeRuns) -> str:
    """What `action` does to the test MSE and to the bits, with no judgment of whether it was worth it."""
    a, b = before.stat("test_mse"), after.stat("test_mse")
    mse = f"{_verb(a.mean, b.mean, 'the test MSE')} ({significant(a.mean)} to {significant(b.mean)}"
    mse += f"{_within_spread(a, b)})"
    bits = (_bits(before), _bits(after))
    if math.isclose(*bits):
        return f"{action} {mse} at the same {bits_text(bits[0])} bits per position."
    span = f"({bits_text(bits[0])} to {bits_text(bits[1])})"
    return f"{action} {mse} and {_verb(*bits, 'the bits per position')} {span}."


def _verb(before: float, after: float, what: str) -> str:
    """What happens to a positive number. "Times lower" is ambiguous, division is not."""
    if abs(after - before) < _SAME * before:
        return f"changes {what} by less than 1%"
    return f"divides {what} by {before / after:.2f}" if after < before else f"multiplies {what} by {after / before:.2f}"


def _within_spread(a: Stat, b: Stat) -> str:
    if a.count > 1 and b.count > 1 and abs(a.mean - b.mean) < a.sd + b.sd:
        return ", less than the spread between seeds"
    return ""


def _codes(before: RecipeRuns, after: RecipeRuns) -> str:
    used = [recipe.stat("codes_used").mean for recipe in (before, after)]
    sizes = [recipe.stat("codebook_size").mean for recipe in (before, after)]
    if not all(map(math.isfinite, used + sizes)):
        return ""
    return f" It uses {used[1]:,.0f} of {sizes[1]:,.0f} codes instead of {used[0]:,.0f} of {sizes[0]:,.0f}."


def _floor(reference: RecipeRuns) -> str:
    return (
        f"Without a codebook, “{reference.title}” reaches a test MSE of {significant(_mse(reference))} "
        f"at {bits_text(_bits(reference))} bits per position."
    )


def _caveats(measured: list[RecipeRuns]) -> list[str]:
    """What a reader must know before believing a difference."""
    caveats = []
    if len({run.get("steps") for recipe in measured for run in recipe.runs}) > 1:
        caveats.append("Not every run was trained for the same number of steps; see the list of runs below.")
    if len(measured) > 1 and any(len(recipe.runs) == 1 for recipe in measured):
        caveats.append("Where a recipe was trained once only, a small difference may be chance.")
    if not measured:
        caveats.append("No recipe has a test MSE and bits for every seed, so nothing can be compared.")
    return caveats


def _comparable(recipe: RecipeRuns) -> bool:
    """Whether error and bits are known for every seed, and positive, as a ratio needs."""
    stats = recipe.stat("test_mse"), recipe.stat("bits_per_position")
    return all(stat.complete and stat.mean > 0 for stat in stats)


def _mse(recipe: RecipeRuns) -> float:
    return recipe.stat("test_mse").mean


def _bits(recipe: RecipeRuns) -> float:
    return recipe.stat("bits_per_position").mean


def _rate(recipe: RecipeRuns) -> str:
    pixel = significant(recipe.stat("rate_bpp").mean)
    return f"{bits_text(_bits(recipe))} bits per position ({pixel} bits per pixel)"
