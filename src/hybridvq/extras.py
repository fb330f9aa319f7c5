"""Which packages come only with an extra, and the sentence for one that is missing."""

from hybridvq.errors import MissingExtraError

EXTRA_OF = {
    "lightning": "train",
    "tensorboard": "train",
    "datasets": "train",
    "pyarrow": "train",
    "torchmetrics": "train",
    "jinja2": "train",
    "matplotlib": "train",
    "skimage": "train",
    "sklearn": "train",
    "wandb": "wandb",
    "mlflow": "mlflow",
    "gradio": "app",
    "ray": "ray",
    "onnx": "export",
    "onnxscript": "export",
}
"""The extra of pyproject.toml that brings each package, by the name that is imported."""


def missing(error: ModuleNotFoundError) -> MissingExtraError | None:
    """The sentence for an import that failed because an extra is not installed; None where it failed otherwise."""
    package = (error.name or "").partition(".")[0]
    return lacking(package) if package in EXTRA_OF else None


def lacking(package: str) -> MissingExtraError:
    """The error that says which extra brings `package`."""
    return MissingExtraError(f"this needs {package}, which is not installed; {install(EXTRA_OF[package])}")


def install(extra: str) -> str:
    """The command that adds an extra to this installation: from the folder it was installed from, if it was one."""
    import shlex
    from importlib.metadata import PackageNotFoundError, distribution
    from pathlib import Path
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    from hybridvq.documents import parse_json

    try:
        origin = parse_json(distribution("hybridvq").read_text("direct_url.json") or "{}").get("url", "")
    except (PackageNotFoundError, ValueError):
        origin = ""
    if origin.startswith("file:"):
        folder = Path(url2pathname(urlsplit(origin).path))
        name = "." if folder == Path.cwd() else str(folder)
    else:
        name = "hybridvq"
    return f"pip install {shlex.quote(f'{name}[{extra}]')}"
