"""Train a recipe from the encoder and decoder of a bundled model, on the same photographs.

    python -m experiments.beside_photos photos-vq --start photos --data FOLDER --out runs/photos-vq

FOLDER holds `train` and `test`. The networks begin as those of `--start`; the quantizer's two 1x1 convolutions as the
projection onto the directions in which its z varies most, and back. All of it is trained then. A run that was
interrupted goes on with --resume.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

from hybridvq import Tokenizer, load_recipe, load_tokenizer, train
from hybridvq.data import EvalBatches, Images, TrainBatches, open_side
from hybridvq.quantizers import Quantizer
from hybridvq.settings import DataSettings
from hybridvq.training.run import build_tokenizer

SIZE, SHORT_SIDE = 128, 512
SEED, BATCH, BATCHES = 0, 8, 32  # images that z's directions are taken from


def main(words: Sequence[str] | None = None) -> None:
    arguments = parser().parse_args(words)
    torch.set_num_threads(1)
    data = DataSettings(arguments.data, SIZE, short_side=SHORT_SIDE)
    images, held_out = open_side(data, "train"), EvalBatches(open_side(data, "test"), BATCH)
    recipe = load_recipe(arguments.recipe)
    tokenizer = build_tokenizer(recipe, SEED, SIZE)
    begin(tokenizer, load_tokenizer(arguments.start), images)
    train(recipe, images, held_out, arguments.out, SEED, arguments.resume, tokenizer=tokenizer, steps=arguments.steps)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("recipe", help="a recipe of the same network, with a code_dim")
    made.add_argument("--data", required=True, help="folder of photographs, with subfolders train and test")
    made.add_argument("--start", default="photos", help="model whose encoder and decoder it begins with")
    made.add_argument("--out", required=True, help="folder of the run")
    made.add_argument("--steps", type=int, help="in place of the recipe's")
    made.add_argument("--resume", action="store_true", help="go on with the run in --out")
    return made


def begin(tokenizer: Tokenizer, start: Tokenizer, images: Images) -> None:
    """Give the tokenizer the networks of `start`, and a quantizer between the main directions of their z."""
    tokenizer.encoder.load_state_dict(start.encoder.state_dict())
    tokenizer.decoder.load_state_dict(start.decoder.state_dict())
    batches = TrainBatches(images, BATCH, BATCHES, SEED)
    with torch.inference_mode():
        z = torch.cat([start.encoder(batches[i]).movedim(1, -1).flatten(0, 2) for i in range(BATCHES)])
    project(tokenizer.quantizer, z)


@torch.no_grad()
def project(quantizer: Quantizer, z: Tensor) -> None:
    """Let the 1x1 convolutions keep the principal components of the rows of z (N, D), scaled to unit power."""
    mean, count = z.mean(0), quantizer.code_dim
    values, vectors = torch.linalg.eigh((z - mean).T @ (z - mean) / len(z))  # ascending
    directions, scale = vectors[:, -count:].T, values[-count:].mean().sqrt()  # (code_dim, D)
    into = {"weight": (directions / scale)[:, :, None, None], "bias": -directions @ mean / scale}
    back = {"weight": (directions.T * scale)[:, :, None, None], "bias": mean}
    quantizer.to_code.load_state_dict(into)
    quantizer.from_code.load_state_dict(back)


if __name__ == "__main__":
    main()
