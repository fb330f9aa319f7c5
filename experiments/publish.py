"""Turn the folders of finished comparisons into a page of docs/results: numbers, figures, and the command.

    python -m experiments.publish runs/cifar10 docs/results/cifar10
    python -m experiments.publish runs/more docs/results/cifar10:vector,projected docs/results/more

After a colon, the recipes to take of a comparison; without one, all. Writes result.json, the figures and README.md into
the last folder, and the table between the markers that name it on the pages of PAGES. Several comparisons on one page
must have been made with the same images, steps and batch size.
Nothing on these pages is typed by hand.
"""

import json
import re
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hybridvq.report import markdown_table, write_figures
from hybridvq.report.result import RecipeRuns, gather, read_result, width_text
from hybridvq.report.summary import summary

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / page for page in ("README.md", "docs/results/README.md", "docs/compressing.md")]  # hold short tables
TITLES = {
    "cifar10": "CIFAR-10, 3,000 steps, width 64",
    "beta-1": "CIFAR-10, 3,000 steps, width 64: the healthy pair with beta 1",
    "tiny-imagenet": "ImageNet at 64x64, 1,500 steps, width 64",
    "long": "The report's own schedule: CIFAR-10, 39,100 steps, width 64, float32",
    "rate-distortion": "Bits against quality: CIFAR-10, 3,000 steps, width 64",
    "rate-distortion-64": "Bits against quality: ImageNet at 64x64, 400 steps, width 64",
}


def main(sources: list[str], target: Path) -> None:
    result = together([read_source(source) for source in sources])
    recipes = gather(result)
    target.mkdir(parents=True, exist_ok=True)
    (target / "result.json").write_text(
        json.dumps(shortened(result, target.name), separators=(",", ":")) + "\n", encoding="utf-8"
    )
    figures = write_figures(target, target, pictures=False)  # the images belong to their data set
    table = markdown_table(result)
    parts = [
        f"# {TITLES.get(target.name, target.name)}",
        " ".join(summary(recipes)),
        "*Published*, *healthy*, *entropy* and other words are in the [glossary](../../glossary.md).",
        table,
        against_fsq(recipes),
        rounding_table(recipes),
        crossing(recipes),
        spikes(recipes),
        *(f"![{path.stem}]({path.name})" for path in figures),
        how_it_was_made(result, sources, target),
    ]
    (target / "README.md").write_text("\n\n".join(part.strip() for part in parts if part) + "\n", encoding="utf-8")
    fill(target.name, short_table(recipes))


def read_source(source: str) -> dict[str, Any]:
    """A result of "folder" or "folder:recipe,recipe", with the runs of these recipes.

    Raises:
        ValueError: it holds no such recipe.
    """
    folder, _, names = source.partition(":")
    result = read_result(Path(folder))
    wanted = names.split(",") if names else [run["recipe"] for run in result["runs"]]
    for name in wanted:
        if name not in {run["recipe"] for run in result["runs"]}:
            raise ValueError(f"{folder} holds no recipe {name!r}")
    return result | {"runs": [run for run in result["runs"] if run["recipe"] in wanted]}


def together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The first result with the runs of the others after its own; a recipe and seed that several hold counts once.

    Raises:
        ValueError: they were not made with the same images, steps and batch size.
    """
    first = results[0]
    runs = {(run["recipe"], run["seed"]): run for result in reversed(results) for run in result["runs"]}
    for result in results[1:]:
        for key in ("steps", "batch_size"):
            if result["setting"][key] != first["setting"][key]:
                raise ValueError(
                    f"{key} is {first['setting'][key]} in one result and {result['setting'][key]} in another"
                )
        if result["data"]["fingerprint"] != first["data"]["fingerprint"]:
            raise ValueError("the results were made with different images")
    ordered = dict.fromkeys((run["recipe"], run["seed"]) for result in results for run in result["runs"])
    return first | {"runs": [runs[key] for key in ordered]}


def shortened(result: dict[str, Any], name: str) -> dict[str, Any]:
    """The result with curves to six digits, which is more than the figures show, and the command that makes it."""
    runs = []
    for run in result["runs"]:
        curve = {key: [shorter(value) for value in values] for key, values in run["curve"].items()}
        runs.append(run | {"curve": curve})
    return result | {"runs": runs, "command": command_of(name)}


def command_of(name: str) -> str:
    """The command that makes a result, as the second line of its plan says it."""
    return (
        (ROOT / "experiments" / "plans" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
    )


def shorter(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def short_table(recipes: list[RecipeRuns]) -> str:
    """Recipe, bits, error and codes, for the page of all results."""
    lines = ["| recipe | bits per position, raw | test MSE | PSNR | codes used |", "|---|--:|--:|--:|--:|"]
    for recipe in recipes:
        mse, used = recipe.stat("test_mse"), recipe.stat("codes_used")
        spread = f" ± {mse.sd:.4f}" if mse.count > 1 else ""
        codes = f"{used.mean:.0f} of {recipe.stat('codebook_size').mean:.0f}" if used.count else "–"
        lines.append(
            f"| {recipe.title} | {recipe.stat('bits_per_position').mean:.1f} | {mse.mean:.4f}{spread} "
            f"| {recipe.stat('test_psnr_db').mean:.1f} dB | {codes} |"
        )
    return "\n".join(lines)


def against_fsq(recipes: list[RecipeRuns]) -> str:
    """Every recipe beside FSQ's curve at the same entropy, where FSQ was trained at several sizes.

    Between two FSQ models log MSE is taken as linear in bits, as a rate-distortion curve nearly is; outside, nothing is
    said.
    """
    points = {r.name: (r.stat("entropy_bits_per_position").mean, r.stat("test_mse").mean) for r in recipes}
    curve = sorted(point for name, point in points.items() if name.startswith("fsq-"))
    if len(curve) < 2:
        return ""
    lines = [
        "## At FSQ's bits",
        "",
        f"FSQ's test MSE at the entropy of each other model, interpolated between its {len(curve)} sizes "
        f"({curve[0][0]:.1f} to {curve[-1][0]:.1f} bits per position); a ratio below 1 is better than FSQ.",
        "",
        "| recipe | bits per position, entropy | test MSE | FSQ's there | ratio |",
        "|---|--:|--:|--:|--:|",
    ]
    for recipe in recipes:
        bits, mse = points[recipe.name]
        if not recipe.name.startswith("fsq-") and curve[0][0] <= bits <= curve[-1][0]:
            theirs = interpolated(curve, bits)
            lines.append(f"| {recipe.title} | {bits:.2f} | {mse:.4f} | {theirs:.4f} | {mse / theirs:.2f} |")
    return "\n".join(lines)


def interpolated(curve: list[tuple[float, float]], bits: float) -> float:
    """The MSE at `bits` on a curve of ascending (bits, MSE), straight in log MSE between its points."""
    x, y = zip(*curve, strict=True)
    return float(np.exp(np.interp(bits, x, np.log(y))))


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


def how_it_was_made(result: dict[str, Any], sources: list[str], target: Path) -> str:
    data, versions, hardware = result["data"], result["versions"], result["hardware"]
    others = [Path(source).name for source in sources[1:]]
    names = dict.fromkeys([target.name, *(other.partition(":")[0] for other in others)])
    commands = [command_of(name) for name in names]
    named = " ".join([f"runs/{target.name}", *(f"docs/results/{other}" for other in others)])
    return "\n".join(
        [
            "## How it was made",
            "",
            *(f"    {command}" for command in commands),
            f"    python -m experiments.publish {named} docs/results/{target.name}",
            "",
            f"Data: {data['name']}, fingerprint {data['fingerprint']}, {data['train_images']:,} images to train and "
            f"{data['test_images']:,} held out. MSE is on the [-1, 1] scale. {hardware['name']}, {hardware['cores']} "
            f"cores, {result['setting']['jobs']} runs at a time and other work beside them, so speeds are not "
            f"comparable between rows; torch {versions['torch']}, Python {versions['python']}; "
            f"{result['created'][:10]}.",
        ]
    )


def fill(name: str, table: str, pages: Iterable[Path] = PAGES) -> None:
    """Put `table` between the markers of `name`, on each page that has them."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(pattern.sub(lambda m: f"{m[1]}\n{table}\n\n{m[2]}", text), encoding="utf-8")


if __name__ == "__main__":
    *given, last = sys.argv[1:]
    main(given, Path(last))
