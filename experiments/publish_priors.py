"""Write the page on priors from what `experiments.priors` measured.

    python -m experiments.publish_priors runs/priors docs/results/priors

Copies result.json and lets `experiments.pages` make the page of it; the pictures come from
`experiments.prior_pictures`.
"""

import sys
from pathlib import Path

from experiments.pages import write_page
from hybridvq.documents import read_json, to_json
from hybridvq.writing import write_whole


def main(source: Path, target: Path) -> None:
    result = read_json(source / "result.json") | {"pictures": sorted(path.stem for path in target.glob("*.png"))}
    write_whole(target / "result.json", to_json(result, indent=None))
    write_page(target, "priors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
