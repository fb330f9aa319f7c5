"""Whether everything that touches a device works on this one: quantizers, a file, a run stopped and resumed.

    python -m experiments.gpu.smoke --out OUT --device cuda

Quantizers are compared with the CPU's answers, the tokens of a file are decoded on both, and a run in bfloat16 that is
cut off must end at the weights of one that was not. Writes OUT/smoke.json and exits with 1 if something failed. Needs
torch, lightning, tensorboard, jsonargparse, constriction and scikit-image; about two minutes.
"""

import argparse
import platform
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors.torch import load_file

from hybridvq import Codec, open_images, train
from hybridvq.data import EvalBatches, TrainBatches
from hybridvq.documents import to_json
from hybridvq.quantizers import QUANTIZERS, build_quantizer
from hybridvq.settings import ModelSettings, Recipe, TrainingSettings

OPTIONS: dict[str, dict[str, Any]] = {"frequency": {"frequent": 8}}
CODES = 64
TOLERANCE = 1e-4  # of z_hat between devices, relative to its largest number


def quantizer_agrees(name: str, device: torch.device) -> str:
    """One training step and one evaluation on both devices; the evaluation's codes and z_hat are compared."""
    options = dict(OPTIONS.get(name, {}))
    takes = QUANTIZERS[name].__init__.__code__.co_varnames
    if "codebook_size" in takes:
        options["codebook_size"] = CODES
    torch.manual_seed(0)
    quantizer, z = build_quantizer(16, name, options).to(device), torch.randn(8, 16, 8, 8)
    x = z.to(device).requires_grad_()
    quantized = quantizer.train()(x)
    (quantized.z_hat.square().mean() + sum(quantized.losses.values(), torch.zeros((), device=device))).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all(), "a gradient is not finite"
    quantizer.eval()
    with torch.inference_mode():
        there = quantizer(z.to(device))
        here = quantizer.cpu()(z)
    if here.tokens.codes is not None:
        same = float((there.tokens.codes.cpu() == here.tokens.codes).double().mean())
        # Where two codes are about equally near, each device may take another.
        assert same > 0.99, f"only {same:.1%} of the codes are the CPU's"
        return f"{same:.2%} of the codes are the CPU's"
    worst = float((there.z_hat.cpu() - here.z_hat).abs().max() / here.z_hat.abs().max().clamp(min=1e-9))
    assert worst < TOLERANCE, f"z_hat differs by {worst:.1e}"
    return f"z_hat differs by {worst:.1e}"


def file_opens_on_both(device: torch.device) -> str:
    """A file made on the device holds the same tokens, and within rounding the same pixels, on the CPU."""
    pixels = np.random.default_rng(0).integers(0, 256, (97, 130, 3), dtype=np.uint8)
    there, here = Codec.load("photos-vq", device), Codec.load("photos-vq", "cpu")
    data = there.compress(pixels)
    a, b = (np.asarray(codec.decompress(data), np.int16) for codec in (there, here))
    worst = int(abs(a - b).max())
    assert worst <= 1, f"pixels differ by {worst}"
    return f"{len(data)} bytes, pixels differ by at most {worst}"


def resumed_run_is_the_whole_one(out: Path, steps: int, precision: str) -> str:
    """A run that is stopped half way and resumed ends at the weights of an uninterrupted one."""

    class LostError(Exception):
        pass

    images = open_images("photos", "train", size=32)
    tests = EvalBatches(open_images("photos", "test", size=32), 16, 16)
    model = ModelSettings(dim=32, downsampling=4, quantizer="gain-shape", options={"codebook_size": CODES, "levels": 8})
    settings = TrainingSettings(
        steps=steps, batch_size=16, eval_every=steps, checkpoint_every=max(1, steps // 2), precision=precision
    )
    recipe = Recipe(title="smoke", name="smoke", model=model, training=settings)
    train(recipe, images, tests, out / "whole", progress=False)

    def lost(batches: TrainBatches, step: int) -> torch.Tensor:
        if step == steps * 3 // 4:
            raise LostError
        return batch(batches, step)

    batch = TrainBatches.__getitem__
    with patch.object(TrainBatches, "__getitem__", lost), suppress(LostError):
        train(recipe, images, tests, out / "cut", progress=False)
    assert not (out / "cut" / "model").exists(), "the run was not cut off"
    train(recipe, images, tests, out / "cut", resume=True, progress=False)
    a, b = (load_file(out / run / "model" / "model.safetensors") for run in ("whole", "cut"))
    worst = max(float((a[key].double() - b[key].double()).abs().max()) for key in a)
    assert worst < 1e-2, f"weights differ by {worst:.1e}"
    return f"{precision}: weights differ by {worst:.1e}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(arguments.device)
    checks: dict[str, Callable[[], str]] = {
        f"quantizer {name}": (lambda name=name: quantizer_agrees(name, device)) for name in QUANTIZERS
    }
    checks["codec"] = lambda: file_opens_on_both(device)
    for precision in ("32-true", "bf16-mixed"):
        checks[f"training {precision}"] = lambda precision=precision: resumed_run_is_the_whole_one(
            arguments.out / precision, arguments.steps, precision
        )
    done = {name: tried(name, check) for name, check in checks.items()}
    card = torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()
    result = {"device": card, "torch": torch.__version__, "python": platform.python_version(), "checks": done}
    (arguments.out / "smoke.json").write_bytes(to_json(result))
    return int(any(not check["passed"] for check in done.values()))


def tried(name: str, check: Callable[[], str]) -> dict[str, Any]:
    """Whether a check passed, what it said, and how long it took; printed as it ends."""
    start = time.perf_counter()
    try:
        passed, said = True, check()
    except Exception as error:
        traceback.print_exc()
        passed, said = False, f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    print(f"{'ok' if passed else 'FAILED':7}{name}: {said} ({seconds:.1f} s)", flush=True)
    return {"passed": passed, "said": said, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    sys.exit(main())
