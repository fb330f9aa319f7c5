"""Run a tiny recipe in a folder, and look at what it wrote."""

import torch

import tiny
from hybridvq import train

CHECKPOINT = "checkpoints/last.ckpt"


def run(folder, recipe=None, images=None, **options):
    return train(
        recipe or tiny.recipe(), images or tiny.images(), tiny.test_batches(), folder, **({"progress": False} | options)
    )


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def read_checkpoint(folder):
    return torch.load(folder / CHECKPOINT, weights_only=True)
