"""This project's files as curves of `experiments.rate_curves`."""

from pathlib import Path

import numpy as np

from experiments.photos import PhotoCodec, Rival
from hybridvq import Codec, CodecSettings
from hybridvq.codec import describe
from hybridvq.codec.choose import Chooser

# lambda over the mean square of the vectors of the first stage; 0 is what the model was trained with
WEIGHTS = (0.012, 0.006, 0.003, 0.0)


def ours(model: str) -> Rival:
    """A model's curve, with less and less lambda."""
    codec = Codec.load(model, "cpu")
    unit = Chooser(codec.tokenizer.quantizer, codec.tables, 1, 0, 0.0).power()
    settings = {f"lambda {w * unit:.2g}": CodecSettings(rate_weight=round(w * unit, 6)) for w in WEIGHTS}
    return Rival(Path(model).name, Path(model).name, Curve(codec, settings), tuple(settings))


class Curve:
    """The codec at each of its settings."""

    def __init__(self, codec: Codec, settings: dict[str, CodecSettings]) -> None:
        self.codec, self.settings = codec, settings

    def __call__(self, name: str) -> PhotoCodec:
        return PhotoCodec(
            lambda pixels: self.codec.compress(pixels, self.settings[name]),
            lambda data: np.array(self.codec.decompress(data).convert("RGB")),
            lambda data: sum(part.size for part in describe(data) if part.name.startswith("stage ")),
        )
