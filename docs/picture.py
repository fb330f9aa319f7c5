"""Draw the picture of the README: sample photographs beside what comes back, with bits and error.

    python docs/picture.py docs/picture.jpg

Each model codes whole photographs, to which the numbers belong; a part of each is shown, so that pixels can be seen.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from hybridvq import Codec
from hybridvq.data import photo_files, read_image
from hybridvq.metrics import psnr_db
from hybridvq.pretrained import pretrained_folder

MODELS = {"photos-vq": "VQ-VAE", "photos-gain-shape": "gain-shape", "photos": "hybrid"}
PARTS = {"chelsea": (60, 110), "astronaut": (0, 130), "coffee": (60, 210)}  # top and left of what is shown
SIDE = 176
INCHES = 2.2


def main(target: Path) -> None:
    mpl.rcParams["font.size"] = 8.5
    photographs = {path.stem: read_image(path) for path in photo_files() if path.stem in PARTS}
    figure = Figure(figsize=((len(MODELS) + 1) * INCHES, len(PARTS) * (INCHES + 0.6)), layout="constrained")
    axes = figure.subplots(len(PARTS), len(MODELS) + 1)
    for row, (name, (top, left)) in zip(axes, PARTS.items(), strict=True):
        part = np.s_[top : top + SIDE, left : left + SIDE]
        pixels = photographs[name]
        row[0].imshow(pixels[part], interpolation="nearest")
        row[0].set_title("original\n24 bits per pixel\n")
        for ax, (model, title) in zip(row[1:], MODELS.items(), strict=True):
            folder = pretrained_folder(model)
            assert folder is not None
            codec = Codec.load(folder, "cpu")
            data = codec.compress(pixels)
            decoded = np.array(codec.decompress(data).convert("RGB"))
            mse = float(np.mean((decoded / 127.5 - pixels / 127.5) ** 2))
            ax.imshow(decoded[part], interpolation="nearest")
            bits = 8 * len(data) / (pixels.shape[0] * pixels.shape[1])
            ax.set_title(f"{title}\n{bits:.2f} bits per pixel\nMSE {mse:.4f}, {psnr_db(mse):.1f} dB")
    for ax in axes.flat:
        ax.set_axis_off()
    figure.savefig(target, dpi=110, pil_kwargs={"quality": 95, "subsampling": 0})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
