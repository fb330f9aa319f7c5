"""This project's files as curves of `experiments.rate_curves`."""

from pathlib import Path

import numpy as np

from experiments.photos import PhotoCodec, Rival
from hybridvq import Codec, CodecSettings
from hybridvq.codec import describe
from hybridvq.codec.choose import Chooser
from hybridvq.tokenizer import model_folder

STREAMS = ("stage ", "codes", "coefficients")  # the parts of a file that are not headers
QUALITIES = (5, 20, 35, 50, 65, 80, 95)  # of a hybrid model
# lambda over the mean square of the vectors of the first stage; 0 is what the model was trained with
WEIGHTS = (0.012, 0.006, 0.003, 0.0)


def ours(model: str, device: str = "cpu") -> Rival:
    """A model's curve, with less and less lambda, or at each quality of a hybrid model."""
    codec, name = Codec.load(model, device), Path(model).name
    model_bytes = sum(path.stat().st_size for path in model_folder(model).glob("*.safetensors"))
    if codec.is_hybrid:
        of_quality = {str(quality): CodecSettings(quality=quality) for quality in QUALITIES}
        curve = Curve(codec, of_quality)
        return Rival(name, f"{name}, hybrid", curve, tuple(of_quality), model_bytes=model_bytes)
    unit = Chooser(codec.tokenizer.quantizer, codec.tables, 1, 0.0).power()
    settings = {f"lambda {w * unit:.2g}": CodecSettings(rate_weight=round(w * unit, 6)) for w in WEIGHTS}
    return Rival(name, name, Curve(codec, settings), tuple(settings), model_bytes=model_bytes)


class Curve:
    """The codec at each of its settings."""

    def __init__(self, codec: Codec, settings: dict[str, CodecSettings]) -> None:
        self.codec, self.settings = codec, settings

    def __call__(self, name: str) -> PhotoCodec:
        return PhotoCodec(
            lambda pixels: self.codec.compress(pixels, self.settings[name]),
            lambda data: np.array(self.codec.decompress(data).convert("RGB")),
            lambda data: sum(part.size for part in describe(data) if part.name.startswith(STREAMS)),
        )
