"""A hybrid model's files on the page: one dial for every rate, and three readings of each file."""

import re

import numpy as np
import pytest

from app.test_door import result
from codec.models import photo
from hybridvq import CodecSettings, ConfigError
from hybridvq.app import compress
from hybridvq.app.models import load_models
from hybridvq.app.picture import Picture
from hybridvq.codec import Draw
from hybridvq.codec.layered import truncate

DIALS = ["quality", 50, 0, 1, 0, 1]  # dial, quality, lambda, bits per pixel, seed, temperature


@pytest.fixture(scope="module")
def picture():
    return Picture("my cat.png", photo(96, 128))


def update(client, site, model, dial):
    """What the controls become: the dial, quality, lambda, bits per pixel, seed and temperature."""
    return result(client, site, "shown", model, dial, whole=True)


def test_quality_spans_the_rates(loaded, picture):
    sizes = []
    for quality in (1, 50, 100):
        settings = compress.settings_of(loaded.hybrid, "quality", quality, 0, 1)
        assert settings == CodecSettings(quality=quality)
        *_, own, _, _ = compress.compress(loaded.hybrid, picture, settings, Draw())
        assert (own.title, own.setting) == (".hvq", f"quality {quality}")
        sizes.append(len(own.data))
    assert sizes == sorted(sizes)
    assert sizes[2] > 2 * sizes[0]


def test_three_readings_of_a_file(loaded, picture):
    codec, draw = loaded.hybrid.codec, Draw(seed=3, temperature=0.5)
    preview, guess, whole, *rivals = compress.compress(loaded.hybrid, picture, CodecSettings(quality=60), draw)
    assert whole.data == codec.compress(picture.pixels, CodecSettings(quality=60))
    np.testing.assert_array_equal(whole.pixels, codec.decompress(whole.data))
    np.testing.assert_array_equal(preview.pixels, codec.decompress(whole.data, preview=True))
    np.testing.assert_array_equal(guess.pixels, codec.decompress(whole.data, preview=True, draw=draw))
    assert preview.data == guess.data == truncate(whole.data, 0)
    assert len({shown.pixels.tobytes() for shown in (preview, guess, whole)}) == 3
    assert guess.setting == "seed 3, temperature 0.5"
    assert [rival.title for rival in rivals] == ["JPEG", "WebP"]
    page = compress.render(loaded.hybrid, picture, [preview, guess, whole, *rivals])
    assert page.count("data:image/png;base64,") == 6
    assert f"Download my cat.hvq ({len(whole.data):,} bytes)" in page


def test_what_is_drawn_follows_seed_and_temperature(loaded, picture):
    drawn = [
        compress.readings(loaded.hybrid.codec, loaded.hybrid.codec.compress(picture.pixels), draw)[1].pixels
        for draw in (Draw(0), Draw(0), Draw(1), Draw(0, 0.0))
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    np.testing.assert_array_equal(
        drawn[3], loaded.hybrid.codec.decompress(loaded.hybrid.codec.compress(picture.pixels), preview=True)
    )


@pytest.mark.parametrize("whole", [False, True])
def test_a_file_that_was_cut_off_opens(loaded, picture, tmp_path, whole):
    data = loaded.hybrid.codec.compress(picture.pixels)
    data = data if whole else data[:-3]
    (tmp_path / "a.hvq").write_bytes(data)
    page = compress.open_file(loaded, tmp_path / "a.hvq", 0, 1)
    assert page.count("data:image/png;base64,") == 3
    assert ("not read" in page) is not whole
    sizes = [int(cell.replace(",", "")) for cell in re.findall(r"<td>([\d,]+)</td>", page)]
    assert sum(sizes[:-1]) == sizes[-1] == len(data)


def test_dials_are_the_models_own(client, site):
    """Quality, seed and temperature for hybrid models alone; lambda for the others; a target for all."""
    for model, dial, visible in (
        ("hybrid", "quality", [True, False, False, True, True]),
        ("hybrid", "bits per pixel", [False, False, True, True, True]),
        ("hybrid", "lambda", [True, False, False, True, True]),
        ("gain-shape", "quality", [False, True, False, False, False]),
        ("vq", "lambda", [False, True, False, False, False]),
        ("vq", "bits per pixel", [False, False, True, False, False]),
    ):
        _, *controls = update(client, site, model, dial)
        assert [control["visible"] for control in controls] == visible
    first, *_ = update(client, site, "vq", "quality")
    assert (first["value"], [value for value, _ in first["choices"]]) == ("lambda", ["lambda", "bits per pixel"])
    for odd in ("nobody", None, 3):
        assert update(client, site, odd, odd)[0]["value"] == "quality"


def test_the_page_starts_with_the_hybrid_model(client, site):
    controls = {block.elem_id: block for block in site.state.blocks.blocks.values() if getattr(block, "elem_id", None)}
    assert controls["compress-model"].value == "hybrid"
    assert [controls[f"compress-{name}"].visible for name in ("quality", "lambda", "target")] == [True, False, False]
    shown = result(client, site, "work", None, "chelsea", "hybrid", *DIALS)
    for title in ("Codes alone", "Codes, details drawn", ".hvq", "JPEG", "WebP", "quality 50"):
        assert title in shown
    assert "Codes, details drawn" not in result(client, site, "work", None, "chelsea", "vq", "lambda", *DIALS[1:])


def test_each_model_in_its_place(folders):
    model, baseline, prior, hybrid = (str(folders[name]) for name in ("model", "baseline", "prior", "hybrid"))
    with pytest.raises(ConfigError, match="vq is no hybrid tokenizer; give one such as photos"):
        load_models(model, baseline, prior, baseline)
    with pytest.raises(ConfigError, match=r"hybrid has no codebook that can be shown; .*, and this one as hybrid"):
        load_models(hybrid, baseline, prior, hybrid)
    assert list(load_models(model, model, prior, hybrid).named) == [hybrid, model]
