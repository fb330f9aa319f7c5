"""Every benchmark of speed and memory, one after the other, each in a process of its own; `make bench` runs it.

    python -m benchmarks

Writes the JSON and the table of each beside its script, and all tables into results.md.
"""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

FOLDER = Path(__file__).parent
MODULES = ("published", "steps", "layers", "search", "feeding", "coding", "bulk", "sampling", "startup")


def main() -> None:
    for module in MODULES:
        print(f"benchmarks.speed.{module}", flush=True)
        subprocess.run(
            [sys.executable, "-m", f"benchmarks.speed.{module}", f"benchmarks/speed/{module}.json"], check=True
        )
    collect()


def collect() -> None:
    """Write results.md from the tables that are there."""
    parts = ["# Speed and memory"]
    for module in MODULES:
        table = FOLDER / "speed" / f"{module}.md"
        if table.exists():
            title = (import_module(f"benchmarks.speed.{module}").__doc__ or "").splitlines()[0]
            parts += [f"## {title.rstrip('.')}", table.read_text(encoding="utf-8").strip()]
    (FOLDER / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
