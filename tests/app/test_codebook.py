"""Every code is drawn, alone, and counted."""

import numpy as np
import torch

from hybridvq import Tokens
from hybridvq.app import codebook
from hybridvq.app.picture import SAMPLES, sample_picture
from hybridvq.app.reconstruct import encode
from hybridvq.pixels import to_pixels


def test_codes_are_decoded_alone(loaded):
    drawn = codebook.read_codebook(loaded.model)
    tokenizer = loaded.model.tokenizer
    assert drawn.images.shape == (120, 3, 4, 4, 3)
    for code, gain, level in ((0, 0, 0), (7, 1, 1), (119, 2, 3)):
        alone = tokenizer.decode(Tokens(torch.full((1, 1, 1, 1), code), torch.full((1, 1, 1, 1), level)))
        np.testing.assert_array_equal(drawn.images[code, gain], to_pixels(alone)[0])
    assert drawn.gains == tuple(tokenizer.quantizer.space().level_values[0][[0, 1, 3]].tolist())


@torch.inference_mode()
def test_codes_are_counted_on_the_photographs(loaded):
    counts = codebook.usage(loaded.baseline)[0]
    codes = [
        loaded.baseline.tokenizer.quantizer(encode(loaded.baseline, sample_picture(n))).tokens.codes for n in SAMPLES
    ]
    np.testing.assert_array_equal(counts, np.bincount(np.concatenate([c.flatten() for c in codes]), minlength=64))


def test_codes_are_in_the_order_of_use(loaded):
    drawn = codebook.read_codebook(loaded.baseline)
    assert drawn.images.shape[:2] == (64, 1), "a vector quantizer's codes have no gains"
    used = drawn.counts[drawn.order]
    assert (np.diff(used) <= 0).all()
    sheet, places = codebook.code_sheet(drawn)
    assert (sheet.shape, len(places), places[61]) == ((2 * 8, 32 * 8, 3), 64, (29, 1))
    np.testing.assert_array_equal(sheet[8:16, 29 * 8 : 30 * 8], drawn.images[drawn.order[61], 0])


def test_gains_are_side_by_side(loaded):
    drawn = codebook.read_codebook(loaded.model)
    sheet, places = codebook.code_sheet(drawn)
    x, y = places[40]
    own = sheet[4 * y : 4 * y + 4, 4 * x : 4 * x + 12]
    np.testing.assert_array_equal(own, np.concatenate(drawn.images[drawn.order[40]], 1))


def test_float_gains_are_shown_as_met(loaded):
    class Floats:
        class space:  # noqa: N801
            levels = None

    gains = torch.arange(101.0)
    assert codebook.levels_to_show(Floats, gains) == (5.0, 50.0, 95.0)
    assert codebook.levels_to_show(Floats, gains[:0]) == ()


def test_the_page_says_how_many_are_used(loaded):
    drawn = codebook.read_codebook(loaded.model)
    page = codebook.render(loaded.model, drawn)
    assert f"uses {(drawn.counts > 0).sum()} of its 120 codes" in page
    assert "data:image/svg+xml;base64," in page
    assert page.count("% of positions") == 120
