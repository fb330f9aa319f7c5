"""Images for training and evaluation: sources, one decoding policy, and batches that can be resumed exactly.

data string ─┬─open_images──► Images ──TrainBatches | EvalBatches──► (B, 3, H, W) float32 in [-1, 1]
             └─open_stream──► Stream ──StreamLoader──► the same, of images that fit neither memory nor disk
"""

from hybridvq.data.batches import EpochOrder, EvalBatches, TrainBatches
from hybridvq.data.decode import MAX_PIXELS, open_image, read_image, to_rgb
from hybridvq.data.images import MEMORY_BUDGET, Images, Split
from hybridvq.data.mirrored import Mirrored
from hybridvq.data.part import Part, set_aside
from hybridvq.data.photos import PHOTOGRAPHS, load_photograph, photo_files
from hybridvq.data.sources import PHOTOS, open_images, open_side
from hybridvq.data.stream import Stream, open_stream
from hybridvq.data.stream_batches import StreamLoader
from hybridvq.data.workers import BatchLoader

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
