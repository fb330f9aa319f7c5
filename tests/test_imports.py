"""Imports point one way, and heavy libraries load only where they are needed."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hybridvq
from hybridvq.extras import EXTRA_OF

PACKAGE = Path(hybridvq.__file__).parent

# What each module may import from the project: itself and everything to its left in the design's chain.
ALLOWED = {
    "_version": set(),
    "printing": set(),
    "errors": set(),
    "documents": set(),
    "ranges": {"errors"},
    "weights": set(),
    "extras": {"documents", "errors"},
    "settings": {"errors", "ranges"},
    "recipe": {"documents", "errors", "settings"},
    "threads": {"errors", "ranges"},
    "devices": {"errors"},
    "distributed": set(),
    "launch": {"errors"},
    "metrics": set(),
    "quantizers": {"devices", "errors", "distributed", "metrics", "ranges"},
    "networks": {"errors", "distributed", "ranges"},
    "losses": {"errors", "distributed", "quantizers", "ranges"},
    "writing": {"errors"},
    "data": {"documents", "errors", "extras", "printing", "settings", "threads"},
    "pixels": {"data", "errors"},
    "tiles": {"devices", "errors", "networks", "pixels", "quantizers"},
    "pretrained": set(),
    "saved": {"documents", "errors", "pretrained", "ranges"},
    "paths": {"data", "errors"},
    "tokenizer": {
        "devices", "documents", "errors", "networks", "pixels", "quantizers", "ranges", "settings",
        "tiles", "weights", "saved",
    },
    "export": {"_version", "devices", "documents", "errors", "extras", "quantizers", "tokenizer", "writing", "saved"},
    "half": {"errors", "writing", "saved"},
    "evaluation": {"data", "devices", "errors", "settings", "metrics", "quantizers", "tokenizer"},
    "priors": {
        "devices", "documents", "errors", "metrics", "pretrained", "quantizers", "ranges", "tokenizer", "weights",
        "writing", "saved"
    },
    "files": {
        "errors", "data", "metrics", "evaluation", "paths", "pixels", "quantizers", "tiles", "tokenizer", "writing"
    },
    "bulk": {
        "_version", "devices", "documents", "errors", "extras", "data", "quantizers", "ranges", "settings",
        "tokenizer", "writing", "saved"
    },
    "generation": {
        "devices", "errors", "settings", "data", "files", "pixels", "priors", "quantizers", "ranges", "tokenizer",
        "writing", "saved",
    },
    "codec": {
        "devices", "documents", "errors", "settings", "metrics", "data", "networks", "pixels", "quantizers", "ranges",
        "tiles", "tokenizer", "evaluation", "files", "writing", "saved",
    },
    "training": {
        "devices", "documents",
        "errors", "distributed", "launch", "recipe", "settings", "data", "losses", "metrics", "priors", "bulk",
        "networks", "quantizers", "tokenizer", "evaluation", "extras", "printing", "writing", "saved",
    },
    "comparison": {
        "codec", "devices", "documents", "pixels",
        "_version", "errors", "settings", "recipe", "data", "losses", "metrics", "tokenizer", "evaluation", "training",
        "writing"
    },
    "report": {"documents", "errors", "metrics", "printing", "writing"},
    "app": {
        "devices", "documents", "pixels", "tiles",
        "errors", "settings", "data", "metrics", "quantizers", "tokenizer", "evaluation", "codec", "priors",
        "generation", "printing", "report", "saved",
    },
    "commands": {
        "devices", "documents", "errors", "extras", "launch", "settings", "recipe", "data", "quantizers", "tokenizer",
        "evaluation", "files", "priors", "codec", "export", "half", "generation", "bulk", "training", "comparison",
        "report", "app", "pretrained", "printing", "ranges", "writing", "saved", "paths"
    },
    "__main__": {"cli"},
    "cli": {"_version", "commands", "errors", "extras", "launch", "printing", "recipe", "threads", "__main__"},
}  # fmt: skip


def imported_modules(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hybridvq":
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("hybridvq.")}
    return names


def module_files() -> list[tuple[str, Path]]:
    files = []
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if module != "__init__":
            files.append((module, path))
    return files


@pytest.mark.parametrize(("module", "path"), module_files(), ids=lambda value: getattr(value, "name", value))
def test_imports_point_one_way(module, path):
    assert imported_modules(path) - {module} <= ALLOWED[module]


def test_only_training_imports_lightning():
    users = {
        module
        for module, path in module_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Import) and any(a.name.split(".")[0] == "lightning" for a in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lightning")
    }
    assert users == {"training"}


def test_only_the_cluster_engine_imports_ray():
    users = {path.name for _, path in module_files() if "import ray" in path.read_text()}
    assert users == {"cluster.py"}


def test_only_the_page_imports_gradio():
    users = {path.relative_to(PACKAGE).as_posix() for _, path in module_files() if "import gradio" in path.read_text()}
    assert users == {"app/chooser.py", "app/page.py", "app/tabs.py"}


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


def test_loading_a_model_is_light():
    loaded = loaded_after("from hybridvq import Tokenizer, load_tokenizer; Tokenizer(dim=8)")
    assert "torch" in loaded
    assert not loaded & {"lightning", "datasets", "matplotlib", "skimage", "sklearn"}


def test_exporters_wait_for_an_export():
    statement = "import hybridvq.cli, hybridvq.commands.export; from hybridvq import export_onnx, load_tokenizer"
    assert not loaded_after(statement) & {"onnx", "onnxscript", "onnx_ir", "onnxruntime"}


def test_reading_tokens_is_light():
    assert not loaded_after("from hybridvq import load_tokens") & {"lightning", "datasets", "matplotlib", "ray"}


def test_decoding_tokens_is_light():
    loaded = loaded_after("from hybridvq.codec import TokenCoder, load_tables, read")
    assert not loaded & {"torch", "lightning", "datasets", "matplotlib", "skimage", "sklearn"}


def test_fitting_tables_is_light():
    assert not loaded_after("from hybridvq.codec import fit_tables") & {"lightning", "datasets", "matplotlib"}


def test_the_command_line_starts_without_torch():
    assert not loaded_after("import hybridvq.cli") & {"torch", "gradio"}


def test_what_a_page_shows_is_computed_without_gradio():
    tabs = ", ".join(f"hybridvq.app.{name}" for name in ("reconstruct", "compress", "generate", "codebook", "compare"))
    assert not loaded_after(f"import {tabs}") & {"gradio", "lightning", "datasets"}


def test_no_module_has_the_name_of_a_function():
    """Importing a module of that name would put it in the function's place."""
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(hybridvq.__all__)
    assert inspect.isfunction(hybridvq.compare)


def test_public_names():
    assert sorted(hybridvq.__all__) == [
        "Codec", "CodecError", "CodecSettings", "ConfigError", "DataError", "FiniteScalarQuantizer",
        "FrequencyQuantizer", "GainShapeQuantizer", "GaussianQuantizer", "HybridQuantizer", "HybridVQError",
        "IdentityQuantizer", "MaskedPrior", "MissingExtraError", "ModelError", "PixelCNNPrior", "Prior",
        "ProjectedQuantizer", "Quantized", "Quantizer", "ShapeError", "StaticPrior", "Tokenizer", "Tokens",
        "TrainingError", "TransformerPrior", "VectorQuantizer", "__version__", "build_prior",
        "build_quantizer", "compare", "compress", "decompress", "evaluate", "export_onnx", "load_prior",
        "load_recipe", "load_tokenizer", "load_tokens", "open_images", "sample", "tokenize", "train",
        "train_prior", "write_report",
    ]  # fmt: skip
    for name in hybridvq.__all__:
        kind = getattr(hybridvq, name)
        if name == "__version__":
            assert isinstance(kind, str)
        elif name[0].isupper():
            assert inspect.isclass(kind), name
        else:
            assert inspect.isfunction(kind), name


CORE = """
import sys
sys.modules |= dict.fromkeys(%r)  # as if they were not installed
import numpy as np, torch, tempfile
from pathlib import Path
from PIL import Image
import hybridvq
from hybridvq import Codec, VectorQuantizer, load_tokenizer

folder = Path(tempfile.mkdtemp())
Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / "photo.jpg")
codec = Codec.load("photos-vq")
assert codec.decompress(codec.compress(Image.open(folder / "photo.jpg"))).size == (50, 40)
VectorQuantizer(dim=4, codebook_size=8)(torch.randn(2, 4, 8, 8))
from hybridvq.cli import main
assert main(["reconstruct", "photos-vq", str(folder / "photo.jpg"), "--out", str(folder / "out")]) == 0
assert main(["train", "--recipe", "vector", "--out", str(folder / "run")]) == 2
try:
    hybridvq.train
except hybridvq.MissingExtraError as error:
    print(error)
"""


def test_without_extras_models_load_and_training_names_its_extra():
    done = subprocess.run([sys.executable, "-c", CORE % (list(EXTRA_OF),)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sentence = r"this needs \w+, which is not installed; pip install '.+\[train\]'"
    assert re.fullmatch(sentence, done.stdout.splitlines()[-1])
    assert re.fullmatch(rf"hybridvq: {sentence}", done.stderr.splitlines()[-1])


USER = """
import torch
from hybridvq import Tokenizer, VectorQuantizer, compare, load_tokenizer

tokenizer: Tokenizer = load_tokenizer("photos-gain-shape")
x = torch.zeros(1, 3, 64, 64)
tokenizer.encode(x).cods
VectorQuantizer(dim=8)(x).z_hta
tokenizer(x).x_hat
compare(1, 2)
"""


def test_type_checkers_see_the_public_names(tmp_path):
    """With the configuration and the cache of `make check`, which spares reading torch again."""
    (tmp_path / "user.py").write_text(USER)
    root = PACKAGE.parents[1]
    options = ["--config-file", str(root / "pyproject.toml"), "--cache-dir", str(root / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *options, "user.py"]
    env = os.environ | {"MYPYPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    for said in ('"Tokens" has no attribute "cods"', '"Quantized" has no attribute "z_hta"', '"compare"'):
        assert said in done.stdout, done.stdout + done.stderr
    assert "x_hat" not in done.stdout
