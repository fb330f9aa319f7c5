"""How often bfloat16 chooses another code than float32.

    python -m experiments.precision experiments/precision.json MODEL --data PATH_OR_HUB_ID

MODEL is a run or a model folder with a `vector` or `gain-shape` quantizer of one stage. Its encoder runs on held-out
images in float32 and in mixed bfloat16; the search is float32 in both, as the quantizers here always do it. The last
row gives the search itself vectors and codes in bfloat16.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import write_result
from torch import Tensor

from hybridvq import Tokenizer, load_tokenizer
from hybridvq.data import EvalBatches, open_images
from hybridvq.evaluation import squared_error
from hybridvq.quantizers import nearest_code
from hybridvq.quantizers.base import flatten, nearest_direction

BATCH = 256


def searched_in_bfloat16(tokenizer: Tokenizer, z: Tensor) -> Tensor:
    """The codes (B, 1, h, w) of z, had the search been in bfloat16."""
    quantizer = tokenizer.quantizer
    rows = flatten(quantizer.in_code_space(z)).bfloat16()
    space = quantizer.space()
    search = nearest_code if space.gain == "none" else nearest_direction
    codes = search(rows, space.code_vectors(0).bfloat16())
    return codes.view(len(z), 1, *z.shape[2:])


@torch.inference_mode()
def measure(tokenizer: Tokenizer, batches: EvalBatches) -> dict[str, Any]:
    positions = encoder = search = levels = 0
    errors = {"float32": 0.0, "bfloat16": 0.0}
    values = 0
    for i in range(len(batches)):
        x = batches[i]
        z = tokenizer.encoder(x)
        exact = tokenizer.quantizer(z).tokens
        with torch.autocast("cpu", torch.bfloat16):
            mixed = tokenizer.quantizer(tokenizer.encoder(x)).tokens
        same = mixed.codes == exact.codes
        positions += same.numel()
        encoder += int((~same).sum())
        search += int((searched_in_bfloat16(tokenizer, z) != exact.codes).sum())
        if tokenizer.quantizer.levels:
            levels += int(((mixed.gains != exact.gains) & same).sum())
        for name, tokens in (("float32", exact), ("bfloat16", mixed)):
            errors[name] += squared_error(tokenizer.decode(tokens), x)
        values += x.numel()
    return {
        "positions": positions,
        "other_code": encoder / positions,
        "other_level_same_code": levels / positions,
        "other_code_searched_in_bfloat16": search / positions,
        "test_mse": {name: error / values for name, error in errors.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("model")
    parser.add_argument("--data", default="photos")
    parser.add_argument("--size", type=int, default=32)
    arguments = parser.parse_args()
    images = open_images(arguments.data, "test", size=arguments.size)
    found = measure(load_tokenizer(arguments.model), EvalBatches(images, BATCH))
    mse = found["test_mse"]
    table = [
        "| held-out images | positions with another code | test MSE |",
        "|---|--:|--:|",
        f"| encoder and search in float32 | – | {mse['float32']:.5f} |",
        f"| encoder in bfloat16, search in float32 | {found['other_code']:.2%} | {mse['bfloat16']:.5f} |",
        f"| encoder in float32, search in bfloat16 | {found['other_code_searched_in_bfloat16']:.2%} | – |",
    ]
    content = found | {"model": Path(arguments.model).name, "data": images.name, "images": len(images)}
    write_result(arguments.out, "experiments.precision", content, table, ["MODEL", "--data", "PATH_OR_HUB_ID"])


if __name__ == "__main__":
    main()
