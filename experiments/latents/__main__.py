"""What a latent should hold, in one table: codes, coefficients, or both, with all else the same.

    python -m experiments.latents --out runs/latents --data FOLDER --steps 6000 --seeds 0 1 2
    python -m experiments.latents --out runs/latents --seeds 0 1 2 --measure kodak --name Kodak

With --data, trains the models of the rows that are not trained yet, each in a folder of its own, and fits what their
tokens are counted with; FOLDER has subfolders train and test. A run that was cut off goes on. With --measure, measures
what is not measured yet, on the photographs of a folder, and writes result.json, README.md and rate.svg into --page,
of all sets of photographs so far. Several of these commands may train different rows or seeds at a time.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.latents import plan
from experiments.latents.measure import measure_all
from experiments.latents.page import read
from experiments.pages import write_page
from experiments.photos import read_photographs
from hybridvq.data import EvalBatches, open_side
from hybridvq.documents import to_json
from hybridvq.errors import HybridVQError
from hybridvq.settings import DataSettings
from hybridvq.writing import write_whole

EVAL_BATCH, EVAL_IMAGES = 64, 64  # of the test loss along the runs, which nothing is chosen by


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    rows = [row for row in plan.ROWS if row.name in arguments.rows]
    out = Path(arguments.out)
    try:
        if arguments.data:
            data = DataSettings(arguments.data, arguments.size, arguments.short_side, workers=arguments.workers)
            tests = EvalBatches(open_side(data, "test"), EVAL_BATCH, EVAL_IMAGES)
            settings = (arguments.device, arguments.batch_size, arguments.fit_steps)
            plan.prepare(rows, arguments.seeds, arguments.steps, open_side(data, "train"), tests, out, *settings)
        if arguments.measure:
            photographs = read_photographs(arguments.measure, arguments.limit)
            name = arguments.name or Path(arguments.measure).name
            measure_all(rows, arguments.seeds, photographs, name, out, arguments.device)
            write_whole(Path(arguments.page) / "result.json", to_json(read(out)))
            write_page(Path(arguments.page), "latents")
    except HybridVQError as error:
        sys.exit(str(error))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [row.name for row in plan.ROWS]
    made.add_argument("--out", default="runs/latents", help="folder of the runs and of what is measured")
    made.add_argument("--rows", nargs="+", choices=names, default=names, help="all if not given")
    made.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    made.add_argument("--device", default="auto", help="such as cpu or cuda")
    made.add_argument("--data", help="folder of photographs to train on")
    made.add_argument("--steps", type=int, default=6000, help="of every run")
    made.add_argument("--batch-size", type=int, help="that of the recipe photos if not given")
    made.add_argument("--size", type=int, default=128, help="side of the crops")
    made.add_argument("--short-side", type=int, default=512, help="of the photographs that crops are cut from")
    made.add_argument("--workers", type=int, default=0, help="processes that read and decode")
    made.add_argument("--fit-steps", type=int, help="of tables and neighbors, where not as many as usual")
    made.add_argument("--measure", help="folder of photographs to measure")
    made.add_argument("--name", help="how the page calls them")
    made.add_argument("--limit", type=int, help="measure only so many, evenly spread")
    made.add_argument("--page", default="docs/results/latents", help="folder of the page")
    return made


if __name__ == "__main__":
    main()
