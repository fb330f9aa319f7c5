"""Turn the folders of finished comparisons into a page of docs/results: numbers, figures, and the command.

    python -m experiments.publish runs/cifar10 docs/results/cifar10
    python -m experiments.publish runs/more docs/results/cifar10:vector,projected docs/results/more

After a colon, the recipes to take of a comparison; without one, all. Writes result.json into the last folder and lets
`experiments.pages` make its page of that. Several comparisons on one page must have been made with the same images,
steps and batch size. What `experiments.contextual` measured is taken along.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.contextual import FILE as CONTEXTUAL
from experiments.pages import ROOT, write_page
from hybridvq.documents import read_json, to_json
from hybridvq.report.result import read_result
from hybridvq.writing import write_whole

MEASURED = ("contextual_bits_per_position", "static_bits_per_position", "table_bytes")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="+", help="folders of comparisons, each as FOLDER or FOLDER:RECIPE,RECIPE")
    parser.add_argument("folder", type=Path, help="folder of the page, such as docs/results/cifar10")
    given = parser.parse_args(words)
    sources, folder = given.sources, given.folder
    result = shortened(together([read_source(source) for source in sources]))
    result |= {
        "name": folder.name,
        "sources": [f"runs/{folder.name}", *sources[1:]],
        "commands": commands(folder.name, sources[1:]),
    }
    write_whole(folder / "result.json", to_json(result, indent=None) + b"\n")
    write_page(folder, folder.name)


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
    runs = [run | beside(Path(folder), run) for run in result["runs"] if run["recipe"] in wanted]
    return result | {"runs": [{"made": made(result)} | run for run in runs]}


def beside(folder: Path, run: dict[str, Any]) -> dict[str, Any]:
    """What was measured of a run after its comparison."""
    path = folder / "runs" / f"{run['recipe']}-seed{run['seed']}" / CONTEXTUAL
    found = read_json(path) if path.is_file() else {}
    return {key: found[key] for key in MEASURED if key in found}


def made(result: dict[str, Any]) -> str:
    """The machine of a comparison, and when it was made."""
    return f"{result['hardware']['name']}, {result['hardware']['cores']} cores, {result['created'][:10]}"


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


def shortened(result: dict[str, Any]) -> dict[str, Any]:
    """The result with curves to six digits, which is more than the figures show."""
    runs = []
    for run in result["runs"]:
        curve = {key: [shorter(value) for value in values] for key, values in run["curve"].items()}
        runs.append(run | {"curve": curve})
    return result | {"runs": runs}


def shorter(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def commands(name: str, others: list[str]) -> list[str]:
    """The commands that make a result of these sources."""
    names = [name, *(Path(other.partition(":")[0]).name for other in others)]
    return [command_of(name) for name in dict.fromkeys(names)]


def command_of(name: str) -> str:
    """The command that makes a result, as the second line of its plan says it."""
    plan = ROOT / "experiments" / "plans" / f"{name}.yaml"
    return plan.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")


if __name__ == "__main__":
    main()
