"""Images for training and evaluation: sources, one decoding policy, and batches that can be resumed exactly.

data string ─┬─open_images──► Images ──TrainBatches | EvalBatches──► (B, 3, H, W) float32 in [-1, 1]
             └─open_stream──► Stream ──StreamLoader──► the same, of images that fit neither memory nor disk
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hybridvq.data.decode import MAX_PIXELS, open_image, read_image, to_rgb
from hybridvq.data.images import MEMORY_BUDGET, Images, Split
from hybridvq.data.mirrored import Mirrored
from hybridvq.data.part import Part, set_aside
from hybridvq.data.photos import PHOTOGRAPHS, load_photograph, photo_files
from hybridvq.data.sources import PHOTOS, open_images, open_side
from hybridvq.data.stream import Stream, open_stream

if TYPE_CHECKING:
    from hybridvq.data.batches import EpochOrder as EpochOrder
    from hybridvq.data.batches import EvalBatches as EvalBatches
    from hybridvq.data.batches import TrainBatches as TrainBatches
    from hybridvq.data.stream_batches import StreamLoader as StreamLoader
    from hybridvq.data.workers import BatchLoader as BatchLoader

__all__ = [
    "MAX_PIXELS",
    "MEMORY_BUDGET",
    "PHOTOGRAPHS",
    "PHOTOS",
    "BatchLoader",
    "EpochOrder",
    "EvalBatches",
    "Images",
    "Mirrored",
    "Part",
    "Split",
    "Stream",
    "StreamLoader",
    "TrainBatches",
    "load_photograph",
    "open_image",
    "open_images",
    "open_side",
    "open_stream",
    "photo_files",
    "read_image",
    "set_aside",
    "to_rgb",
]

# Loaded on first use: what there is to read needs no torch.
_HOMES = {
    "BatchLoader": "workers",
    "EpochOrder": "batches",
    "EvalBatches": "batches",
    "StreamLoader": "stream_batches",
    "TrainBatches": "batches",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
