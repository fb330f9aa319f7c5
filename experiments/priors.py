"""What tokens cost under each prior: bits per position on held-out images, for several tokenizers and sets of images.

    python -m experiments.priors experiments/plans/priors.yaml --data cifar10=PATH_OR_HUB_ID imagenet-64=PATH_OR_HUB_ID

Trains what the plan names and is not there yet, by the commands of `hybridvq`, each resumed where it was cut off:

    OUT/SET/TOKENIZER/run         a tokenizer
    OUT/SET/TOKENIZER/tokens      its tokens, train and test
    OUT/SET/TOKENIZER/PRIOR       a prior over them

then measures every prior on all held-out tokens, and writes result.json with the commands. Float gains are also counted
once rounded to 8, 6 and 4 bits between the 0.2 and 99.8 percentiles of the training set, since a density is no number
of bits.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from hybridvq import load_prior, load_tokens
from hybridvq.cli import main as hybridvq
from hybridvq.comparison.plan import hardware
from hybridvq.documents import read_json, read_yaml, to_json
from hybridvq.evaluation import GAIN_BITS, GAIN_QUANTILES
from hybridvq.priors import GainGrid, Prior, bits_per_position
from hybridvq.training.folder import CHECKPOINT, read_checkpoint
from hybridvq.training.tokens import TokenArrays, split
from hybridvq.writing import write_whole

BATCH = 64


def options(settings: dict[str, Any]) -> list[str]:
    """{"training.steps": 100} as command-line words."""
    return [f"--{key}={value}" for key, value in settings.items()]


def commands(name: str, plan: dict[str, Any], data: str, out: Path) -> list[tuple[Path, list[str]]]:
    """What makes each folder of one set of images, in order, with the folder that is there when it is done."""
    images = ["--data", data, "--size", str(plan["size"])]
    made = []
    for recipe, priors in plan["priors"].items():
        folder = out / name / recipe
        run, tokens = folder / "run", folder / "tokens"
        train = ["train", "--recipe", recipe, *images, *options(plan["tokenizer"]), "--out", str(run), "--resume"]
        made.append((run / "model", train))
        for part in ("train", "test"):
            words = ["tokenize", str(run), *images, "--split", part, "--out", str(tokens / part)]
            made.append((tokens / part / "tokens.json", words))
        for prior, settings in priors.items():
            own = {"prior": prior} | plan["common"] | settings
            words = ["train-prior", str(run), "--tokens", str(tokens), *options(own)]
            made.append((folder / prior / "model", [*words, "--out", str(folder / prior), "--resume"]))
    return made


def carry_out(made: list[tuple[Path, list[str]]]) -> None:
    for there, words in made:
        if not there.exists():
            print("hybridvq", shlex.join(words), flush=True)
            if hybridvq(words):
                sys.exit(2)


def measure(folder: Path) -> dict[str, Any]:
    """Every prior over the tokens of one tokenizer."""
    learned, held_out = (TokenArrays(load_tokens(folder / "tokens" / part)) for part in ("train", "test"))
    gains = learned.batch(slice(None)).get("gains")
    grids = gain_grids(gains) if gains is not None and gains.is_floating_point() else {}
    folders = sorted(path.parents[1] for path in folder.glob("*/model/config.json") if path.parents[1].name != "run")
    priors = {}
    for path in folders:
        prior = load_prior(path)
        priors[path.name] = measure_prior(prior, held_out, grids) | history(path)
    return {"images": len(held_out), "grid": list(prior.shape), "gain": prior.kind, "priors": priors}


def measure_prior(prior: Prior, held_out: TokenArrays, grids: dict[int, GainGrid]) -> dict[str, Any]:
    bits = bits_per_position(prior, map(split, held_out.in_order(BATCH)))
    result: dict[str, Any] = {
        "code_bits": bits.code,
        "gain_bits": bits.gain,
        "weights": sum(p.numel() for p in prior.parameters()),
    }
    result["rounded"] = {}
    for count, grid in grids.items():
        rounded = bits_per_position(prior, map(split, held_out.in_order(BATCH)), grid)
        result["rounded"][count] = {"code_bits": rounded.code, "gain_bits": rounded.gain}
    return result


def gain_grids(gains: torch.Tensor) -> dict[int, GainGrid]:
    ordered = gains.flatten().sort().values
    low, high = (float(ordered[round(q * (len(ordered) - 1))]) for q in GAIN_QUANTILES)
    return {bits: GainGrid(low, high, bits) for bits in GAIN_BITS}


def history(run: Path) -> dict[str, Any]:
    """The curve of a prior's run, its length and its time; none for a static prior."""
    if not (run / CHECKPOINT).is_file():
        return {}
    state = next(s for s in read_checkpoint(run / CHECKPOINT)["callbacks"].values() if "best_step" in s)
    keys = ("tests", "best_step", "stopped", "seconds")
    return {"settings": read_json(run / "recipe.json")["training"]} | {key: state[key] for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", nargs="+", default=[], help="SET=PATH_OR_HUB_ID, instead of the plan's")
    parser.add_argument("--out", type=Path, default=Path("runs/priors"))
    arguments = parser.parse_args()
    plan = read_yaml(arguments.plan)
    given = dict(pair.split("=", 1) for pair in arguments.data)
    result: dict[str, Any] = {"hardware": hardware(), "torch": torch.__version__, "sets": {}}
    for name, part in plan.items():
        made = commands(name, part, given.get(name, part["data"]), arguments.out)
        carry_out(made)
        result["sets"][name] = {recipe: measure(arguments.out / name / recipe) for recipe in part["priors"]}
    write_whole(arguments.out / "result.json", to_json(result))
    print(arguments.out / "result.json")


if __name__ == "__main__":
    main()
