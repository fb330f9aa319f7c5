"""This project's files as curves of `benchmarks.rate_curves`."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.photos import PhotoCodec, Rival
from hybridvq import Codec, CodecSettings
from hybridvq.codec import describe
from hybridvq.codec.choose import Chooser

# lambda over the mean square of the vectors of the first stage; 0 is what the model was trained with
WEIGHTS = {"contextual": (0.03, 0.015, 0.008, 0.004, 0.0), "static": (0.008, 0.0)}


def ours(model: str) -> Iterator[Rival]:
    """A model's curves: with contextual tables its first stages alone, then all with less and less lambda; with static
    ones two settings, since the pixels are those of the same settings and only the bytes differ.
    """
    codec = Codec.load(model, "cpu")
    unit = Chooser(codec.tokenizer.quantizer, codec.tables, 1, 0, 0.0).power()
    for mode in ("contextual", "static"):
        first = range(1, codec.tables.stages) if mode == "contextual" else ()
        settings = [CodecSettings(stages=s, mode=mode) for s in first]
        settings += [CodecSettings(rate_weight=round(w * unit, 6), mode=mode) for w in WEIGHTS[mode]]
        by_name = {name_of(one, codec.tables.stages): one for one in settings}
        name = Path(model).name
        yield Rival(f"{name}-{mode}", f"{name}, {mode}", Curve(codec, by_name), tuple(by_name))


def name_of(settings: CodecSettings, stages: int) -> str:
    weight = f", lambda {settings.rate_weight:g}" if settings.rate_weight else ""
    return f"{settings.stages or stages} of {stages} stages{weight}"


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
