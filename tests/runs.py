"""Run a tiny recipe in a folder, and look at what it wrote."""

import pytest
import torch

import tiny
from hybridvq import train
from hybridvq.training.module import TokenizerTraining

CHECKPOINT = "checkpoints/last.ckpt"


def run(folder, recipe=None, images=None, **options):
    return train(
        recipe or tiny.recipe(), images or tiny.images(), tiny.test_batches(), folder, **({"progress": False} | options)
    )


def weights(folder):
    return (folder / "model" / "model.safetensors").read_bytes()


def read_checkpoint(folder):
    return torch.load(folder / CHECKPOINT, weights_only=True)


def cut_off(folder, recipe, step, monkeypatch, **options):
    """A run that is interrupted at `step`."""

    def stop(self, batch, batch_idx):
        if self.global_step == step:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    original = TokenizerTraining.training_step
    with monkeypatch.context() as patched:
        patched.setattr(TokenizerTraining, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(folder, recipe, **options)
    assert (folder / CHECKPOINT).exists()
