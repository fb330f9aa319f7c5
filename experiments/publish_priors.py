"""Write the page on priors from what `experiments.priors` measured.

    python -m experiments.publish_priors runs/priors docs/results/priors

Copies result.json and lets `experiments.pages` make the page of it; the pictures come from
`experiments.prior_pictures`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.pages import write_page
from hybridvq.documents import read_json, to_json
from hybridvq.writing import write_whole


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder that `experiments.priors` wrote")
    parser.add_argument("folder", type=Path, help="folder of the page, such as docs/results/priors")
    given = parser.parse_args(words)
    pictures = sorted(path.stem for path in given.folder.glob("*.png"))
    result = read_json(given.source / "result.json") | {"pictures": pictures}
    write_whole(given.folder / "result.json", to_json(result, indent=None))
    write_page(given.folder, "priors")


if __name__ == "__main__":
    main()
