"""A tokenizer as two ONNX files, which onnxruntime and numpy alone can use.

x ──► encoder.onnx ──► codes, gains ──► decoder.onnx ──► x_hat       any batch, any size on the grid
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybridvq._version import __version__
from hybridvq.devices import Device
from hybridvq.documents import read_json, to_json
from hybridvq.errors import ConfigError
from hybridvq.extras import lacking
from hybridvq.quantizers import Tokens
from hybridvq.saved import CONFIG, model_folder
from hybridvq.tokenizer import Tokenizer, load_tokenizer, weight_hash
from hybridvq.writing import check_new, whole_folder, writable, write_whole

ENCODER, DECODER, ABOUT = "encoder.onnx", "decoder.onnx", "export.json"
FORMAT = 1
KEY = "hybridvq"  # of the ONNX metadata that holds what export.json says
EXAMPLE = (2, 3, 5)  # batch, h and w that are traced: above 1 and different, so that none is taken for a constant


class Encode(nn.Module):
    """x (B, 3, H, W) to the parts that its tokens have, in the order of `Tokens`."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.tokenizer = tokenizer

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.tokenizer.encode(x).parts.values())


class Decode(nn.Module):
    """The parts `names` of tokens to x_hat (B, 3, H, W)."""

    def __init__(self, tokenizer: Tokenizer, names: list[str]) -> None:
        super().__init__()
        self.tokenizer, self.names = tokenizer, names

    def forward(self, *parts: Tensor) -> Tensor:
        return self.tokenizer.decode(Tokens(**dict(zip(self.names, parts, strict=True))))


def export_onnx(model: str | Path, out: str | Path, device: Device = "auto") -> dict[str, Any]:
    """Write encoder.onnx, decoder.onnx and export.json into the new folder `out`; return what the last says.

    The encoder takes x (B, 3, f h, f w) float32 in [-1, 1], f being the downsampling factor, and gives the parts of
    `Tokens` that the model has: codes (B, S, h, w) int64, gains (B, S, h, w) int64 levels or float32, vectors
    (B, D, h, w) float32, passed (B, 1, h, w) bool. The decoder takes those and gives x_hat. B, h and w are free. Both
    compute what `Tokenizer.encode` and `decode` do in evaluation, to the rounding of float32; the encoder holds a score
    for each position and code at once, where ours holds a slab of them. They are traced on `device`.

    Raises:
        ConfigError: the extra `export` is not installed, `out` is not a new folder or cannot be written, or the model
            has a hybrid quantizer.
        ModelError: there is no such model, or it cannot be loaded.
    """
    require_exporter()
    check_new(Path(out))
    folder = model_folder(model)
    tokenizer = load_tokenizer(folder, device=device)
    if tokenizer.quantizer.space().coefficients:
        raise ConfigError(
            f"{model} has a hybrid quantizer, whose step has no place in an exported model; export one of another kind"
        )
    protos = trace(tokenizer)
    about = make_about(tokenizer, folder, protos)
    write(protos, about, Path(out))
    return about


def require_exporter() -> None:
    """Raise ConfigError unless what torch.onnx needs is installed."""
    for name in ("onnx", "onnxscript"):
        if find_spec(name) is None:
            raise lacking(name)


def trace(tokenizer: Tokenizer) -> dict[str, Any]:
    """An `onnx.ModelProto` for each of the two files; the tokenizer is of no other use afterwards (see `settle`)."""
    f = tokenizer.downsampling
    batch, h, w = (torch.export.Dim(name) for name in ("batch", "h", "w"))
    device = next(tokenizer.parameters()).device
    x = torch.zeros(EXAMPLE[0], 3, f * EXAMPLE[1], f * EXAMPLE[2], device=device)
    with torch.no_grad():
        parts = tokenizer.encode(x).parts
    settle(tokenizer.quantizer)
    names, of_parts = list(parts), tuple({0: batch, 2: h, 3: w} for _ in parts)
    protos = {
        ENCODER: to_onnx(Encode(tokenizer), (x,), ["x"], names, ({0: batch, 2: f * h, 3: f * w},)),
        DECODER: to_onnx(Decode(tokenizer, names), tuple(parts.values()), names, ["x_hat"], (of_parts,)),
    }
    for proto in protos.values():
        for value in (*proto.graph.input, *proto.graph.output):
            name_axes(value, 1 if value.name in parts else f)
    return protos


def settle(module: nn.Module) -> None:
    """Replace flags and counters by their values, so that a branch on one is taken now and not kept in the graph."""
    for part in module.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if buffer.ndim == 0 and not buffer.is_floating_point():
                delattr(part, name)
                setattr(part, name, buffer.item())


def to_onnx(
    module: nn.Module, arguments: tuple[Tensor, ...], inputs: list[str], outputs: list[str], shapes: tuple[Any, ...]
) -> Any:
    """The `onnx.ModelProto` of a module, without the notes on its source: they name files of this machine."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            arguments,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        proto = program.model_proto
    for noted in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph):
        noted.ClearField("metadata_props")
    return proto


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the terminal what the exporter says of itself: renamed axes, no torchvision, its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(level)


def name_axes(value: Any, factor: int) -> None:
    """Call the axes of an `onnx.ValueInfoProto` batch, h and w, the last two times `factor`."""
    dims = value.type.tensor_type.shape.dim
    for axis, name in ((0, "batch"), (2, "h"), (3, "w")):
        dims[axis].dim_param = f"{factor}*{name}" if axis and factor > 1 else name


def make_about(tokenizer: Tokenizer, folder: Path, protos: dict[str, Any]) -> dict[str, Any]:
    """What export.json and both files say of themselves."""
    import onnx

    quantizer = tokenizer.quantizer
    return {
        "format": FORMAT,
        "files": {
            name: {
                "inputs": [signature(value) for value in proto.graph.input],
                "outputs": [signature(value) for value in proto.graph.output],
            }
            for name, proto in protos.items()
        },
        "downsampling": tokenizer.downsampling,
        "codebook_size": quantizer.codebook_size,
        "levels": quantizer.levels,
        "stages": quantizer.stages,
        "model": {"sha256": weight_hash(folder), "config": read_json(folder / CONFIG)},
        "versions": {
            "hybridvq": __version__,
            "torch": torch.__version__,
            "onnx": onnx.__version__,
            "opset": next(opset.version for opset in protos[ENCODER].opset_import if not opset.domain),
        },
    }


def signature(value: Any) -> dict[str, Any]:
    """Name, dtype and shape of an `onnx.ValueInfoProto`; free axes by name."""
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in kind.shape.dim]
    return {"name": value.name, "dtype": tensor_dtype_to_np_dtype(kind.elem_type).name, "shape": shape}


def write(protos: dict[str, Any], about: dict[str, Any], out: Path) -> None:
    """The three files, in a folder beside `out` that then becomes it.

    Raises:
        ConfigError: it cannot be written.
    """
    from onnx.helper import set_model_props

    with writable(out), whole_folder(out) as whole:
        for name, proto in protos.items():
            set_model_props(proto, {KEY: json.dumps(about)})
            write_whole(whole / name, proto.SerializeToString())
        write_whole(whole / ABOUT, to_json(about))
