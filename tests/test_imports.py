"""Imports point one way, and heavy libraries load only where they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hybridvq

PACKAGE = Path(hybridvq.__file__).parent

# What each module may import from the project: itself and everything to its left in the design's chain.
ALLOWED = {
    "_version": set(),
    "errors": set(),
    "settings": {"errors"},
    "recipe": {"errors", "settings"},
    "distributed": set(),
    "launch": {"errors"},
    "quantizers": {"errors", "distributed"},
    "networks": {"errors", "distributed"},
    "metrics": set(),
    "writing": {"errors"},
    "data": {"errors"},
    "pretrained": set(),
    "tokenizer": {"errors", "networks", "pretrained", "quantizers"},
    "export": {"_version", "errors", "quantizers", "tokenizer", "writing"},
    "half": {"errors", "tokenizer", "writing"},
    "priors": {"errors", "metrics", "pretrained", "quantizers", "tokenizer", "writing"},
    "evaluation": {"errors", "metrics", "quantizers", "tokenizer"},
    "files": {"errors", "data", "metrics", "evaluation", "tokenizer", "writing"},
    "bulk": {"_version", "errors", "data", "evaluation", "quantizers", "tokenizer", "writing"},
    "generation": {
        "errors", "settings", "data", "evaluation", "files", "priors", "quantizers", "tokenizer", "writing"
    },
    "codec": {"errors", "settings", "metrics", "data", "quantizers", "tokenizer", "evaluation", "files", "writing"},
    "training": {
        "errors", "distributed", "launch", "settings", "data", "metrics", "priors", "bulk", "quantizers", "tokenizer",
        "evaluation", "writing",
    },
    "compare": {
        "_version", "errors", "settings", "recipe", "data", "metrics", "tokenizer", "evaluation", "training", "writing"
    },
    "report": {"errors", "metrics", "writing"},
    "app": {
        "errors", "settings", "data", "metrics", "quantizers", "tokenizer", "evaluation", "codec", "priors",
        "generation", "report",
    },
    "commands": {
        "errors", "launch", "settings", "recipe", "data", "tokenizer", "evaluation", "files", "priors", "codec",
        "export", "half", "generation", "bulk", "training", "compare", "report", "app", "writing"
    },
    "cli": {"_version", "commands", "errors", "launch", "recipe", "__main__"},
    "__main__": {"cli"},
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
    assert users == {"app/page.py", "app/tabs.py"}


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


def test_public_names():
    assert sorted(hybridvq.__all__) == [
        "Codec", "CodecError", "CodecSettings", "ConfigError", "DataError", "FrequencyQuantizer", "GainShapeQuantizer",
        "GaussianQuantizer", "HybridVQError", "IdentityQuantizer", "ModelError", "PixelCNNPrior", "Prior",
        "ProjectedQuantizer", "Quantized", "Quantizer", "ShapeError", "StaticPrior", "Tokenizer", "Tokens",
        "TrainingError", "TransformerPrior", "VectorQuantizer", "__version__", "build_prior", "build_quantizer",
        "compare", "compress", "decompress", "evaluate", "export_onnx", "load_prior", "load_recipe", "load_tokenizer",
        "load_tokens", "open_images", "tokenize", "train", "write_report",
    ]  # fmt: skip
    for name in hybridvq.__all__:
        if name not in ("compare", "write_report"):
            getattr(hybridvq, name)
