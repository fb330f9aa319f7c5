"""The page of a comparison: what it found, its tables and figures, and how it was made. Nothing on it is typed by hand.

`page` is the text of README.md, which follows from result.json alone.
"""

from itertools import pairwise
from typing import Any

from experiments.comparison_figures import figure_names
from experiments.comparison_figures import figures as figures
from experiments.equal_bits import at, hull, ratio_text
from experiments.families import BITS, FAMILIES, OURS, family, points_of
from hybridvq.report import markdown_table
from hybridvq.report.result import RecipeRuns, gather, width_text
from hybridvq.report.summary import summary

TITLES = {
    "cifar10": "CIFAR-10, 3,000 steps, width 64",
    "beta-1": "CIFAR-10, 3,000 steps, width 64: the healthy pair with beta 1",
    "tiny-imagenet": "ImageNet at 64x64, 1,500 steps, width 64",
    "long": "The report's own schedule: CIFAR-10, 39,100 steps, width 64, float32",
    "rate-distortion": "Bits against quality: CIFAR-10, 3,000 steps, width 64",
    "rate-distortion-64": "Bits against quality: ImageNet at 64x64, 400 steps, width 64",
}


def page(result: dict[str, Any]) -> str:
    """The text of README.md."""
    recipes, name = gather(result), result["name"]
    parts = [
        f"# {TITLES.get(name, name)}",
        " ".join(summary(recipes)),
        "*Published*, *healthy*, *entropy* and other words are in the [glossary](../../glossary.md).",
        markdown_table(result),
        equal_bits(recipes),
        rounding_table(recipes),
        crossing(recipes),
        spikes(recipes),
        *(f"![{figure}]({figure}.svg)" for figure in figure_names(recipes)),
        settings_table(recipes),
        how_it_was_made(result),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def short_table(result: dict[str, Any]) -> str:
    """Recipe, bits, error and codes, for the page of all results."""
    lines = ["| recipe | bits per position, raw | test MSE | PSNR | codes used |", "|---|--:|--:|--:|--:|"]
    for recipe in gather(result):
        mse, used, psnr_db = (recipe.stat(key) for key in ("test_mse", "codes_used", "test_psnr_db"))
        codes = f"{used.mean:.0f} of {recipe.stat('codebook_size').mean:.0f}" if used.count else "–"
        lines.append(
            f"| {recipe.title} | {recipe.stat('bits_per_position').mean:.1f} "
            f"| {mse.mean:.4f}{spread(mse.sd, mse.count)} | {psnr_db.mean:.1f} dB | {codes} |"
        )
    return "\n".join(lines)


def equal_bits(recipes: list[RecipeRuns]) -> str:
    """Each gain-shape model beside what its rivals reach at its bits, by entropy and as files are coded."""
    curves = {key: {name: hull(points) for name, points in points_of(recipes, key).items()} for key in BITS}
    rivals = [name for name in FAMILIES if name != OURS and len(curves["entropy_bits_per_position"].get(name, [])) > 1]
    ours = [recipe for recipe in recipes if family(recipe) == OURS]
    if not rivals or not ours:
        return ""
    keys = [key for key in BITS if any(recipe.stat(key).count for recipe in ours)]
    heads = [f"bits, {BITS[key]} | " + " | ".join(f"over {FAMILIES[name]}" for name in rivals) for key in keys]
    lines = [
        "## At equal bits",
        "",
        f"Gain-shape's test MSE over that of {' and of '.join(FAMILIES[name] for name in rivals)} at the same bits per "
        "position; below 1, gain-shape has less error. A family's curve joins its best members, straight in log MSE. "
        "With more members it could lie lower, so the first number favors gain-shape; the second, where there is one, "
        "favors the family, whose curve, if convex, cannot fall below the extended lines beside. The contextual coder "
        "is that of files, fitted to tokens of training images, one seed.",
        "",
        "| recipe | test MSE | " + " | ".join(heads) + " |",
        "|---|--:|" + "--:|" * (len(keys) * (1 + len(rivals))),
    ]
    for recipe in ours:
        mse, cells = recipe.stat("test_mse"), []
        for key in keys:
            bits = recipe.stat(key)
            cells.append(f"{bits.mean:.2f}" if bits.count else "–")
            for name in rivals:
                bounds = at(curves[key].get(name, []), bits.mean) if bits.count else None
                cells.append(ratio_text(mse.mean, bounds))
        lines.append(f"| {recipe.title} | {mse.mean:.4f}{spread(mse.sd, mse.count)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(sd: float, count: int) -> str:
    return f" ± {sd:.4f}" if count > 1 else ""


def rounding_table(recipes: list[RecipeRuns]) -> str:
    """What is left once the coefficient of a trained model is rounded, where there is one."""
    with_gains = [recipe for recipe in recipes if recipe.rounded()]
    if not with_gains:
        return ""
    widths = sorted({bits for recipe in with_gains for bits in recipe.rounded()}, reverse=True)
    lines = [
        "## The coefficient, rounded after training",
        "",
        "To evenly spaced values between the 0.2 and 99.8 percentiles of the coefficients on training images, or to 1 "
        "everywhere, which takes no bits and leaves the codes alone; test MSE, and the raw bits per position.",
        "",
        "| recipe | mean ± deviation, range | float | " + " | ".join(map(width_text, widths)) + " |",
        "|---|---|" + "--:|" * (len(widths) + 1),
    ]
    for recipe in with_gains:
        gains = recipe.gains[0]
        cells = [f"{recipe.stat('test_mse').mean:.4f} ({recipe.stat('bits_per_position').mean:.1f})"]
        cells += [f"{mse.mean:.4f} ({rate.mean:.1f})" for mse, rate in (recipe.rounded()[bits] for bits in widths)]
        spread = f"{gains['mean']:.3g} ± {gains['std']:.2g}, {gains['min']:.3g} to {gains['max']:.3g}"
        lines.append(f"| {recipe.title} | {spread} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def crossing(recipes: list[RecipeRuns]) -> str:
    """The published pair along the first seed's run: errors, codes, where one passes below the other, and spikes."""
    found = {recipe.name: recipe.runs[0] for recipe in recipes}
    if not {"vector-published", "projected-published"} <= set(found):
        return ""
    runs = found["vector-published"], found["projected-published"]
    a, b = (run["curve"] for run in runs)
    steps = a["test_step"]
    lines = [
        "## Published VQ-VAE and published projection, along the run",
        "",
        "First seed, held-out images: test MSE and codes in use.",
        "",
        "| step | VQ-VAE | codes | projected | codes |",
        "|--:|--:|--:|--:|--:|",
    ]
    for i in sorted({*range(0, len(steps), max(1, len(steps) // 12)), len(steps) - 1}):
        cells = [f"{curve['test_mse'][i]:.4f} | {curve['test_codes_used'][i]}" for curve in (a, b)]
        lines.append(f"| {steps[i]:,} | " + " | ".join(cells) + " |")
    spikes = " and ".join(f"{run['max_loss_spike']:.2f} ({run['title']})" for run in runs)
    jumps = " and ".join(f"{largest_rise(run['curve']['test_mse']):.2f} ({run['title']})" for run in runs)
    said = [
        who_is_below(steps, a["test_mse"], b["test_mse"]),
        f"Largest loss spikes: {spikes}.",
        f"Largest rise of the test MSE from one measurement to the next, as a ratio: {jumps}.",
    ]
    return "\n".join([*lines, "", " ".join(said)])


def who_is_below(steps: list[int], vector: list[float], projected: list[float]) -> str:
    """One sentence on where the second curve lies below the first."""
    below = [step for step, v, p in zip(steps, vector, projected, strict=True) if p < v]
    last_above = max((step for step in steps if step not in below), default=0)
    said = f"Projected lies below at {len(below)} of {len(steps)} measurements"
    if not below:
        return f"{said}: it never crosses."
    if last_above == steps[-1]:
        return f"{said}, first at step {below[0]:,}, but not at the end."
    return f"{said}, first at step {below[0]:,}, and at every one after step {last_above:,}."


def largest_rise(values: list[float]) -> float:
    """The largest ratio of a value to the one before it."""
    return max(after / before for before, after in pairwise(values))


def spikes(recipes: list[RecipeRuns]) -> str:
    """Where the first seed's worst batches lie, for models that saw the same ones."""
    runs = [recipe.runs[0] for recipe in recipes if recipe.runs[0].get("worst_batches")]
    if len(runs) < 2:
        return ""
    lines = [
        "## Where the worst batches lie",
        "",
        "First seed, which shows every model the same batches: the steps whose loss is the largest multiple of the "
        "median of the 100 before, and that multiple.",
        "",
        "| recipe | worst batches |",
        "|---|---|",
    ]
    for run in runs:
        worst = ", ".join(f"{step:,} ({ratio:.2f})" for step, ratio in run["worst_batches"])
        lines.append(f"| {run['title']} | {worst} |")
    return "\n".join(lines)


def settings_table(recipes: list[RecipeRuns]) -> str:
    """What may differ between the runs of one table, and what each recipe took."""
    lines = [
        "## What each row was trained with",
        "",
        "Batch normalization: with the statistics of each batch to the end, or with running averages after so much of "
        "the training, at the latest. Code space: scaled to unit power, or left to the commitment loss. Core-hours: of "
        "the training of all its seeds.",
        "",
        "| recipe | seeds | precision | batch normalization | code space | core-hours | machine |",
        "|---|---|---|---|---|--:|---|",
    ]
    for recipe in recipes:
        options, training = (recipe.runs[0]["identity"][key] for key in ("model", "training"))
        normalize = options["options"].get("normalize", False)
        hours = sum(run["train_seconds"] * run["threads"] for run in recipe.runs) / 3600
        cells = [
            ", ".join(str(run["seed"]) for run in recipe.runs),
            " and ".join(dict.fromkeys(str(run["precision"]) for run in recipe.runs)),
            norm_text(training.get("freeze_norm", 0.0)),
            "unit power" if normalize else "as it is",
            f"{hours:.1f}",
            "; ".join(dict.fromkeys(run["made"] for run in recipe.runs)),
        ]
        lines.append(f"| {recipe.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def norm_text(share: float) -> str:
    return f"averages after {1 - share:.0%}" if share else "of the batch"


def how_it_was_made(result: dict[str, Any]) -> str:
    data, validation = result["data"], result["setting"].get("validation", 0)
    curves = (
        f"Curves are of {validation:,} more training images that no model learned from, and test images were measured "
        "once, at the end."
        if validation
        else "Curves are of test images."
    )
    return "\n".join(
        [
            "## How it was made",
            "",
            *(f"    {command}" for command in result["commands"]),
            f"    python -m experiments.publish {' '.join(result['sources'])} docs/results/{result['name']}",
            "",
            f"Data: {data['name']}, fingerprint {data['fingerprint']}, {data['train_images']:,} images to train and "
            f"{data['test_images']:,} to test. {curves} MSE is on the [-1, 1] scale, and PSNR is that of the mean "
            "error of all images, 10 log10(4 / MSE), not the mean of theirs. Several runs at a time, so speeds are not "
            f"comparable between rows. Torch {result['versions']['torch']}, Python {result['versions']['python']}.",
        ]
    )
