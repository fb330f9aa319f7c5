"""What an installation needs: every Python that is named, every file of the package, and no litter in a clone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonargparse
import pytest

import hybridvq

ROOT = Path(__file__).parents[1]
PACKAGE = Path(hybridvq.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = re.findall(r"Python :: (3\.\d+)", str(PROJECT["project"]["classifiers"]))
STARTS = """
import sys
from pathlib import Path
for path in Path(sys.argv[1]).rglob("*.py"):
    compile(path.read_text(encoding="utf-8"), path, "exec")
from hybridvq.cli import main
sys.exit(main(["--help"]))
"""


def find_python(version):
    """An interpreter of that version, on the path or among those of pyenv; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for python in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        if python and not subprocess.run([python, "--version"], capture_output=True).returncode:
            return python
    return None


@pytest.mark.parametrize("version", PYTHONS)
def test_the_command_line_starts_with_every_python(version):
    """Every file compiles without a warning, and the help needs nothing but what is written in Python."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed here")
    paths = [str(PACKAGE.parent), str(Path(jsonargparse.__file__).parents[1])]
    done = subprocess.run(
        [python, "-W", "error", "-c", f"import sys; sys.path += {paths}{STARTS}", str(PACKAGE)],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent.anchor,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "hybridvq COMMAND --help" in done.stdout


def test_pythons_that_are_named_are_those_that_are_allowed():
    assert f">={PYTHONS[0]}" == PROJECT["project"]["requires-python"]
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in PYTHONS


def test_files_that_are_no_code_are_in_the_package():
    named = PROJECT["tool"]["setuptools"]["package-data"]["hybridvq"]
    shipped = {path for pattern in named for path in PACKAGE.glob(pattern) if path.is_file()}
    other = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert shipped == other


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this is no clone")
def test_what_the_readme_writes_is_ignored():
    text = (ROOT / "README.md").read_text() + (ROOT / "demo.yaml").read_text()
    written = set(re.findall(r"(?:--out|^out:) ([\w./-]+)", text, re.MULTILINE))
    written |= {"runs/compare", ".venv", "build/docs"}
    assert len(written) > 8
    done = subprocess.run(["git", "check-ignore", *(f"{name}/x" for name in written)], cwd=ROOT, capture_output=True)
    assert len(done.stdout.split()) == len(written), written
