"""How long `hybridvq --help` takes beside importing numpy.

python -m benchmarks.speed.startup benchmarks/speed/startup.json
"""

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.timing import in_turn, medians, ratio, write_result

ROUNDS = 15
COMMANDS = {
    "hybridvq --help": [sys.executable, "-m", "hybridvq.cli", "--help"],
    "import numpy": [sys.executable, "-c", "import numpy"],
}


def main(path: Path) -> None:
    sides = {name: partial(subprocess.run, words, check=True, capture_output=True) for name, words in COMMANDS.items()}
    times = in_turn(sides, ROUNDS)
    over = ratio(times["hybridvq --help"], times["import numpy"])
    table = ["| `hybridvq --help` / `import numpy` | ms |", "|--:|--:|"]
    table.append(f"| {over:.2f} | {medians(times)['hybridvq --help']:.0f} |")
    write_result(
        path, "benchmarks.speed.startup", {"rounds": ROUNDS, "time_ms": medians(times), "over_numpy": over}, table
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
