"""The page of `experiments.latents`: tables, a figure, and how it was made. Nothing on it is typed by hand."""

import math
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.bjontegaard import Curve, bd_rate
from experiments.latents.measure import FILES, read_measured
from experiments.latents.plan import ROWS, Row
from experiments.rate_page import draw
from hybridvq.documents import read_json
from hybridvq.errors import ConfigError
from hybridvq.report.figures import empty_figure, to_svg
from hybridvq.report.rate import rate_axes
from hybridvq.report.result import RecipeRuns, Stat
from hybridvq.report.style import MISSING, looks

ANCHOR = "JPEG, 4:2:0"
OURS = "hybrid"  # the network whose rows are set against the others
Runs = dict[int, Curve]  # of a row, by seed


def read(out: Path) -> dict[str, Any]:
    """All that `out` holds.

    Raises:
        ConfigError: the models were not trained alike.
    """
    return {"setting": setting_of(out), "sets": read_measured(out)}


def figures(result: dict[str, Any]) -> dict[str, bytes]:
    return {"rate": to_svg(rate_figure(result["sets"]))}


def page(result: dict[str, Any]) -> str:
    """The text of README.md."""
    parts = [
        "# What stands between encoder and decoder: codes, numbers, or both",
        introduction(result["setting"]),
        "![PSNR over bits per pixel](rate.svg)",
        *(part for one in result["sets"] for part in section(one)),
        how_it_was_made(result),
    ]
    return "\n\n".join(parts) + "\n"


def setting_of(out: Path) -> dict[str, Any]:
    """What the runs in `out` have in common."""
    found = []
    for path in sorted(out.glob("*/recipe.json")):
        begun = read_json(path)
        training = {key: begun["training"][key] for key in ("steps", "batch_size", "learning_rate")}
        model = {key: begun["model"][key] for key in ("network", "dim", "downsampling")}
        found.append(training | model | begun["data"])
    if any(one != found[0] for one in found):
        raise ConfigError(f"the runs in {out} differ in steps, network or photographs; give each setting its own --out")
    if not found:
        raise ConfigError(f"{out} holds no runs; train some with --data")
    return dict(found[0])


def introduction(setting: dict[str, Any]) -> str:
    size = setting["size"]
    return (
        f"Every model has the network {setting['network']} with {setting['dim']} channels at "
        f"f={setting['downsampling']} and saw the same photographs: {setting['steps']:,} steps of "
        f"{setting['batch_size']} crops of {size}x{size} pixels, with Adam at {setting['learning_rate']:g}. What "
        "differs is what stands between encoder and decoder, and the loss: models that count their bits learn rate and "
        "distortion, the others PSNR. Rows with neighbors are the same models, with coefficients counted given six "
        "decoded neighbors. A decoder has to wait for those, position after position; files of `photos` do without. "
        "The [glossary](../../glossary.md) has the words."
    )


def section(one: dict[str, Any]) -> list[str]:
    """The tables of one set of photographs."""
    about, rows = one["photographs"], curves_of(one)
    ratios = {ours.title: ratios_of(rows, ours) for ours in rows if ours.network == OURS}
    return [
        f"## {about['name']}",
        f"{about['images']} photographs, {about['megapixels']:.2f} megapixels.",
        delta_table(one, rows),
        *([ratio_table(ratios), *verdicts(rows, ratios)] if ratios else []),
        points_table(one),
    ]


def curve_of(points: list[dict[str, Any]]) -> Curve:
    return [(point["rate_bpp"], point["psnr_db"]) for point in points]


def curves_of(one: dict[str, Any]) -> dict[Row, Runs]:
    """The curves of each row that was measured, in the order of the table."""
    rows: dict[Row, Runs] = {}
    for row in ROWS:
        own = {run["seed"]: curve_of(run["points"]) for run in one["runs"] if run["row"] == row.name}
        if own:
            rows[row] = dict(sorted(own.items()))
    return rows


def delta(anchor: Curve, other: Curve) -> float | None:
    """`bd_rate`, and None too where a curve has fewer than two points."""
    try:
        return bd_rate(anchor, other)
    except ValueError:
        return None


def ratios_of(rows: dict[Row, Runs], ours: Row) -> dict[Row, Stat]:
    """The bits of a row over those of each row of another network at equal PSNR, over the seeds that both have."""
    found = {}
    for row in (row for row in rows if row.network != ours.network):
        seeds = [seed for seed in rows[ours] if seed in rows[row]]
        deltas = [delta(rows[row][seed], rows[ours][seed]) for seed in seeds]
        found[row] = Stat.of([None if value is None else 1 + value / 100 for value in deltas])
    return found


def delta_table(one: dict[str, Any], rows: dict[Row, Runs]) -> str:
    anchor, counted = curve_of(one["jpeg"]), {run["row"]: run["counted"] for run in one["runs"]}
    lines = [
        f"Bits against those of {ANCHOR} files at equal PSNR: Bjøntegaard's delta rate, below 0 fewer, over all "
        "qualities that the row and JPEG reach, where these span 2 dB; mean and deviation over seeds. Rows reach "
        f"different qualities, so this column does not rank them. Counted as {FILES}: all bytes, with headers. Bits "
        "per pixel: all bits over all pixels. PSNR: the mean over photographs. Both from the lowest to the highest "
        "point, over all seeds.",
        "",
        "| row | counted as | seeds | bits per pixel | PSNR, dB | bits against JPEG's |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row, runs in rows.items():
        rate, psnr = zip(*(point for curve in runs.values() for point in curve), strict=True)
        stat = Stat.of([delta(anchor, curve) for curve in runs.values()])
        lines.append(
            f"| {row.title} | {counted[row.name]} | {len(runs)} | {min(rate):.3f} to {max(rate):.3f} "
            f"| {min(psnr):.2f} to {max(psnr):.2f} | {spread(stat, '+.1f', '%')} |"
        )
    return "\n".join(lines)


def spread(stat: Stat, form: str, unit: str = "") -> str:
    """Mean and standard deviation, or only what there is; nothing where a seed has no value."""
    if not stat.complete:
        return MISSING
    deviation = f" ± {stat.sd:{form.lstrip('+')}}" if math.isfinite(stat.sd) else ""
    return f"{stat.mean:{form}}{unit}{deviation}"


def ratio_table(ratios: dict[str, dict[Row, Stat]]) -> str:
    lines = [
        "Bits over those of another row at equal PSNR, over all qualities that both reach, seed by seed; below 1 "
        f"fewer. {MISSING} where a seed has no such quality.",
        "",
        "| bits over those of | " + " | ".join(ratios) + " |",
        "|---|" + "--:|" * len(ratios),
    ]
    for row in dict.fromkeys(row for found in ratios.values() for row in found):
        cells = [spread(found[row], ".3f") for found in ratios.values()]
        lines.append(f"| {row.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: dict[Row, Runs], ratios: dict[str, dict[Row, Stat]]) -> list[str]:
    """How the hybrid's rows come out: each against all others, and one without neighbors also against those without."""
    said = []
    for ours in (row for row in rows if row.network == OURS):
        found = ratios[ours.title]
        alike = {row: stat for row, stat in found.items() if not row.context}
        if not ours.context and len(alike) < len(found):
            said.append(verdict(ours.title, alike, "without neighbors"))
        said.append(verdict(ours.title, found, ""))
    return said


def verdict(title: str, found: dict[Row, Stat], which: str) -> str:
    """One or two sentences on the row that leaves ours the worst."""
    among = " ".join(["other rows", which]).strip()
    known = {row: stat for row, stat in found.items() if stat.complete}
    left = [row.title for row in found if row not in known]
    beside = f" Not compared, because no quality is reached by both: {'; '.join(left)}." if left else ""
    if not known:
        return f"**{title}** cannot be compared with {among}.{beside}"
    best = max(known, key=lambda row: known[row].mean)
    stat = known[best]
    word = "as many" if f"{stat.mean:.3f}" == "1.000" else "fewer" if stat.mean < 1 else "more"
    doubt = ", which is within the deviation over seeds" if abs(stat.mean - 1) <= stat.sd else ""
    return (
        f"Of the {among}, **{best.title}** stands best beside **{title}**. At equal PSNR, {title} takes {word} bits: "
        f"{spread(stat, '.3f')} times those of {best.title}{doubt}.{beside}"
    )


def averaged(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The points of a row, each the mean over its seeds."""
    return [
        {"setting": points[0]["setting"]}
        | {key: sum(point[key] for point in points) / len(points) for key in ("rate_bpp", "psnr_db")}
        for points in zip(*(run["points"] for run in runs), strict=True)
    ]


def drawn(one: dict[str, Any]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Name, title and mean points of JPEG and of each row."""
    found = [(ANCHOR, ANCHOR, one["jpeg"])]
    for row in curves_of(one):
        found.append((row.name, row.title, averaged([run for run in one["runs"] if run["row"] == row.name])))
    return found


def points_table(one: dict[str, Any]) -> str:
    lines = [
        "Every point, the mean over seeds:",
        "",
        "| row | setting | bits per pixel | PSNR, dB |",
        "|---|---|--:|--:|",
    ]
    for _, title, points in drawn(one):
        for point in points:
            lines.append(f"| {title} | {point['setting']} | {point['rate_bpp']:.3f} | {point['psnr_db']:.2f} |")
    return "\n".join(lines)


def rate_figure(sets: list[dict[str, Any]]) -> Figure:
    """PSNR over bits per pixel, a panel for each set of photographs."""
    names = dict.fromkeys((name, title) for one in sets for name, title, _ in drawn(one))
    recipes = [RecipeRuns(name, title, "", "", ()) for name, title in names]
    style, figure = looks(recipes), empty_figure(4.8, recipes, looks(recipes))
    for ax, one in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        for name, _, points in drawn(one):
            draw(ax, curve_of(points), style[name])
        rate_axes(ax, f"{one['photographs']['name']}: PSNR, dB")
    return figure


def how_it_was_made(result: dict[str, Any]) -> str:
    seeds = sorted({run["seed"] for one in result["sets"] for run in one["runs"]})
    command = f"    python -m experiments.latents --out OUT --seeds {' '.join(map(str, seeds))}"
    names = [one["photographs"]["name"] for one in result["sets"]]
    commands = [
        f"{command} --data PHOTOGRAPHS --steps {result['setting']['steps']}",
        *(f'{command} --measure FOLDER --name "{name}"' for name in names),
    ]
    prints = ", ".join(f"{one['photographs']['name']} {one['photographs']['fingerprint']}" for one in result["sets"])
    return "\n".join(
        [
            "## How it was made",
            "",
            *commands,
            "",
            f"Fingerprints: training photographs {result['setting']['fingerprint']}; {prints}.",
        ]
    )
