"""The page on priors, from what `experiments.priors` measured. Nothing on it is typed by hand."""

from typing import Any

from matplotlib.figure import Figure

from hybridvq.report.figures import to_svg

ORDER = ("static-gaussian", "static", "pixelcnn", "transformer")
TITLES = {
    "static-gaussian": "static, a Gaussian gain per code",
    "static": "static tables",
    "pixelcnn": "PixelCNN",
    "transformer": "transformer",
}
INTRODUCTION = """\
Bits per position that an ideal coder would spend on the tokens ([glossary](../../glossary.md)) of held-out images
under each prior: of the code given what comes before, and of the gain given that and the code. *Static tables* read
nothing before: code frequencies, and for each code a table of gain levels, or one Gaussian where gains are floats. The
other priors are trained to the plan's last step, and the weights with the fewest held-out bits count.

The gain of a `projected` tokenizer is a float. What a prior says of it is a density, whose bits depend on the unit of
the gain and may be negative; so the tables count it rounded to 4 bits, at which the picture hardly changes, and show
the density apart."""
COLORS = {"pixelcnn": "#D55E00", "transformer": "#0072B2"}
GRID_BITS = "4"  # of the grid on which float gains are compared


def bits(prior: dict[str, Any]) -> tuple[float, float]:
    """Code and gain bits per position; float gains rounded to 4 bits."""
    found = prior["rounded"].get(GRID_BITS, prior)
    return found["code_bits"], found["gain_bits"]


def table(part: dict[str, Any], factor: int = 4) -> list[str]:
    """The priors over one tokenizer's tokens."""
    density = part["gain"] == "float"
    lines = [
        "| prior | code | gain | bits per position | bits per pixel | saves over static tables | steps | weights |"
        + (" gain as a density |" if density else ""),
        "|---|--:|--:|--:|--:|--:|--:|--:|" + ("--:|" if density else ""),
    ]
    priors = {name: part["priors"][name] for name in ORDER if name in part["priors"]}
    floor = sum(bits(priors["static"]))
    for name, prior in priors.items():
        code, gain = bits(prior)
        saved = "" if name.startswith("static") else f"{1 - (code + gain) / floor:.1%}"
        weights = f"{prior['weights'] / 1e6:.1f} M" if prior["weights"] else "–"
        shown = "–" if part["gain"] == "none" else f"{gain:.3f}"
        numbers = f"{code:.3f} | {shown} | {code + gain:.3f} | {(code + gain) / factor**2:.3f}"
        steps = f"{prior['tests'][-1]['step']:,}" if "tests" in prior else "–"
        line = f"| {TITLES[name]} | {numbers} | {saved} | {steps} | {weights} |"
        lines.append(line + (f" {prior['gain_bits']:.3f} |" if density else ""))
    return lines


def figures(result: dict[str, Any]) -> dict[str, bytes]:
    """Held-out bits per position along each training run over gain-shape tokens, beside the static tables."""
    sets = result["sets"]
    figure = Figure(figsize=(4.6 * len(sets), 3.2), layout="constrained")
    for ax, (name, parts) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True):
        part = parts["gain-shape"]
        floor = sum(bits(part["priors"]["static"]))
        ax.axhline(floor, color="#555555", ls="--", lw=1)
        ax.annotate(
            "static tables", (0.98, floor), xycoords=("axes fraction", "data"), ha="right", va="top", fontsize=8
        )
        ax.axhline(0.75 * floor, color="#999999", ls=":", lw=1)
        ax.annotate(
            "25% less", (0.98, 0.75 * floor), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8
        )
        for prior, color in COLORS.items():
            tests = part["priors"].get(prior, {}).get("tests", [])
            ax.plot(
                [t["step"] for t in tests], [t["bits"] for t in tests], color=color, marker=".", label=TITLES[prior]
            )
        ax.set(title=f"{name}, gain-shape tokens", xlabel="step", ylabel="held-out bits per position")
        ax.legend(fontsize=8)
    return {"curves": to_svg(figure)}


def page(result: dict[str, Any]) -> str:
    """The text of README.md."""
    parts = ["# Priors: what tokens cost on held-out images", INTRODUCTION, short_table(result)]
    parts.append("![held-out bits per position along the runs](curves.svg)")
    for name, tokenizers in result["sets"].items():
        for recipe, part in tokenizers.items():
            h, w = part["grid"]
            parts.append(f"## {name}, {recipe}\n\n{part['images']:,} held-out images of {h}x{w} positions.")
            parts.append("\n".join(table(part)))
    parts.append("## How it was made\n\n    python -m experiments.priors experiments/plans/priors.yaml --data ...")
    parts.append("    python -m experiments.publish_priors runs/priors docs/results/priors")
    parts.append(
        f"[The plan](../../../experiments/plans/priors.yaml) holds every setting. One seed; "
        f"{result['hardware']['name']}, one thread per run, torch {result['torch']}. "
        "Bits are means over all positions of all held-out images, in float32."
    )
    parts.append(
        "The transformer over CIFAR-10's gain-shape tokens was trained before its positions were given their present "
        "start: embeddings with a deviation of 0.3, then 0.02."
    )
    parts.append(
        "## Samples\n\nThe first ten of seed 0, not chosen. Below each the mean squared error, on [-1, 1], to the "
        "nearest image of the training set: none is a copy. By `python -m experiments.prior_pictures`, which without "
        "`--drawn-only` shows those images too, and reconstructions."
    )
    for name in result["pictures"]:
        parts.append(f"### {name.removesuffix('-samples')}\n\n![{name}]({name}.png)")
    return "\n\n".join(parts) + "\n"


def short_table(result: dict[str, Any]) -> str:
    """One row for each set and tokenizer."""
    lines = ["| images | tokens | static tables | PixelCNN | transformer |", "|---|---|--:|--:|--:|"]
    for name, parts in result["sets"].items():
        for recipe, part in parts.items():
            cells = []
            floor = sum(bits(part["priors"]["static"]))
            for prior in ORDER[1:]:
                total = sum(bits(part["priors"][prior])) if prior in part["priors"] else None
                saved = f" (-{1 - total / floor:.0%})" if total is not None and prior != "static" else ""
                cells.append("–" if total is None else f"{total:.2f}{saved}")
            lines.append(f"| {name} | {recipe} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
