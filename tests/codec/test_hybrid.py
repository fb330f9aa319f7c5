"""Images through files of a hybrid model: the same tokens, in few bytes, and as much as is whole of a cut file."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image

from codec import hybrids, models
from hybridvq import CodecError, CodecSettings, ConfigError, DataError, decompress
from hybridvq.cli import main
from hybridvq.codec import Draw, coefficients, describe, hybrid, layered, load_tables, scales, truncate
from hybridvq.codec.coder import Reader, Writer
from hybridvq.data import read_image
from hybridvq.quantizers.structure import COARSER

SIZES = [(1, 1), (31, 33), (256, 255)]


@pytest.fixture(scope="module")
def codec():
    return hybrids.codec()


@cache
def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def all_rounded(codec, latent, byte):
    tables = hybrids.scales(codec)
    source, channels = hybrid.Rounding(latent.rest, tables, byte, latent.rate_weight), np.arange(tables.dim)
    classes = tables.classes(tables.log_scales(latent.hidden, channels, source.size), byte)
    return source(channels, classes), classes


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("byte", [0, 100, 255])
@pytest.mark.parametrize("size", SIZES)
def test_tokens_come_back_exactly(codec, size, byte, mode):
    latent = hybrids.latent(codec, noise(*size))
    header = layered.layered_header(codec.tables, *size, 8, byte, mode=mode)
    header, codes, streams = layered.read(
        layered.write(header, [latent.code_stream(mode), *latent.coefficient_streams(byte)])
    )
    layers = hybrid.decode(header, codes, streams, codec.tables)
    np.testing.assert_array_equal(layers.codes, latent.codes)
    np.testing.assert_array_equal(layers.rest, all_rounded(codec, latent, byte)[0])
    assert layers.unit == scales.step_of(byte)


def test_codes_and_coefficients_are_those_of_the_model(codec, monkeypatch):
    """To what a choice by bits changes: a coefficient is the nearest, or one nearer to 0."""
    photo = models.photo(96, 160)
    latent, step = hybrids.latent(codec, photo), scales.step_of(128)
    x = torch.from_numpy(photo).movedim(-1, 0)[None].float() / 127.5 - 1
    monkeypatch.setattr(codec.tokenizer.quantizer, "rate_weight", 0.0)
    with torch.inference_mode():
        tokens = codec.tokenizer.encode(x, step)
    np.testing.assert_array_equal(latent.codes, tokens.codes[0])
    r, nearest = all_rounded(codec, latent, 128)[0], tokens.coefficients[0].numpy()
    coded = all_rounded(codec, latent, 128)[1] >= hybrids.scales(codec).coded
    assert (np.abs(r)[coded] - np.abs(nearest)[coded]).max() <= 0
    assert np.abs(r - nearest)[coded].max() <= 1


@pytest.mark.parametrize("size", [(64, 96), (37, 70)])
def test_tiles_leave_no_seam(codec, size):
    photo = models.photo(*size)
    whole = hybrids.latent(codec, photo)
    tiled = hybrid.encode(codec.tokenizer, codec.tables, photo, tile_pixels=32)
    np.testing.assert_array_equal(tiled.codes, whole.codes)
    np.testing.assert_allclose(tiled.rest, whole.rest, atol=1e-4)
    layers = hybrid.Layers(whole.codes, whole.rest, 1.0)
    ((_, _, expected),) = hybrid.pieces(codec.tokenizer, layers, *size)
    for top, left, part in hybrid.pieces(codec.tokenizer, layers, *size, tile_pixels=32):
        same = expected[..., top : top + part.shape[2], left : left + part.shape[3]]
        torch.testing.assert_close(part, same, atol=1e-4, rtol=0)


def ideal_bits(r, classes, tables):
    """What an ideal coder would spend on coefficients r with their classes, both of one shape."""
    coded = classes >= tables.coded
    values, of = r[coded].astype(np.int64), classes[coded]
    far = np.abs(values) > scales.MOST
    bits = tables.bits()[of, np.where(far, scales.ESCAPE, values + scales.MOST)].sum()
    return float(bits + (coefficients.COUNT_BITS + np.frexp(coefficients.to_numbers(values[far]))[1] - 1).sum())


def test_bytes_are_near_the_ideal_of_the_tables(codec):
    latent = hybrids.latent(codec, noise(256, 255))
    r, classes = all_rounded(codec, latent, 60)
    ideal = ideal_bits(r, classes, hybrids.scales(codec))
    assert 8 * sum(map(len, latent.coefficient_streams(60))) == pytest.approx(ideal, rel=0.01)


def test_escaped_coefficients_come_back(codec):
    tables = hybrids.scales(codec)
    r = np.array([0, 63, -63, 64, -64, 65, 32767, -32767, 1], np.int16).reshape(1, 3, 3)
    classes = np.full(r.shape, 63, np.uint8)
    writer = Writer()
    coefficients.encode_block(writer, r, classes, tables)
    np.testing.assert_array_equal(coefficients.decode_block(Reader(writer.stream()), classes, tables), r)


def test_quality_is_the_dial(codec):
    photo = models.photo(128, 160)
    files = [codec.compress(photo, CodecSettings(quality=quality)) for quality in (10, 75, 100)]
    assert len(files[0]) < len(files[1]) < len(files[2])
    assert codec.compress(photo) == files[1]
    errors = [np.square(np.subtract(codec.decompress(file), photo, dtype=float)).mean() for file in files]
    assert errors[0] > errors[1] > errors[2]


@pytest.mark.parametrize(("key", "unit"), [("target_bpp", "bits"), ("target_psnr", "dB")])
def test_targets_are_met(codec, key, unit):
    photo = models.photo(64, 96)
    if key == "target_bpp":
        data = codec.compress(photo, CodecSettings(target_bpp=1.0))
        assert 0.85 < 8 * len(data) / (64 * 96) <= 1
    else:
        data = codec.compress(photo, CodecSettings(target_psnr=24.0))
        error = np.square(np.subtract(codec.decompress(data), photo, dtype=float)).mean()
        assert 24 <= 10 * np.log10(255**2 / error) < 25
    with pytest.raises(ConfigError, match=f"{key} .* is out of reach: .* {unit}"):
        codec.compress(photo, CodecSettings(**{key: 0.01 if key == "target_bpp" else 99.0}))


def test_gray_images_stay_gray(codec):
    gray = np.repeat(models.photo(40, 50)[..., :1], 3, 2)
    assert codec.decompress(codec.compress(gray)).mode == "L"


@pytest.mark.parametrize("settings", [{"stages": 1}, {"rate_weight": 0.1}])
def test_other_dials_are_refused(codec, settings):
    with pytest.raises(ConfigError, match="hybrid models do not have; use quality"):
        codec.compress(noise(8, 8), CodecSettings(**settings))


def test_a_file_opens_wherever_it_is_cut_after_its_codes(codec):
    data = codec.compress(models.photo(40, 50))
    header, _, streams = layered.read(data)
    ends = [len(truncate(data, n)) for n in range(len(streams) + 1)]
    assert ends[-1] == len(data)
    with pytest.raises(CodecError, match="has 4 streams of coefficients, of which 5 cannot be kept"):
        truncate(data, 5)
    assert len(streams) == 4
    for length in range(len(data)):
        if length < ends[0]:
            with pytest.raises(CodecError, match=r"cut off|not an \.hvq file"):
                layered.read(data[:length])
        else:
            whole = sum(end <= length for end in ends) - 1
            assert layered.read(data[:length])[2] == streams[:whole]
    parts = describe(data[:-3])
    assert sum(part.size for part in parts) == len(data) - 3
    assert "3 of 4 streams" in " ".join(part.value for part in parts)
    np.testing.assert_array_equal(codec.decompress(data[: ends[0]]), codec.decompress(data, preview=True))
    layers = hybrid.decode(header, layered.read(data)[1], streams[:1], codec.tables)
    missing = hybrids.scales(codec).group > 0
    assert not layers.rest[missing].any()
    assert layers.rest[~missing].any()


def test_what_is_missing_can_be_drawn(codec):
    data = codec.compress(models.photo(40, 50))
    mean, one, same, other, cold = (
        np.asarray(decompress(data, codec, preview=True, draw=draw))
        for draw in (None, Draw(1), Draw(1), Draw(2), Draw(1, 0.0))
    )
    assert (one == same).all()
    assert (one != other).any()
    assert (one != mean).any()
    np.testing.assert_array_equal(cold, mean)
    np.testing.assert_array_equal(codec.decompress(data, draw=Draw(1)), codec.decompress(data))
    with pytest.raises(ConfigError, match="seed is -1"):
        Draw(-1)


def test_damage_is_refused(codec):
    data = codec.compress(models.photo(40, 50))
    for at in range(3, len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(CodecError):
            codec.decompress(bytes(changed))
    with pytest.raises(CodecError, match="1 bytes follow its end"):
        codec.decompress(data + b"\0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, "an impossible size"),
        ({"height": 2**31, "width": 2**31}, "more than the 268435456 that are allowed"),
        ({"height": 2**28, "width": 1}, "a long and thin image"),
        ({"height": 2**14, "width": 2**14}, r"codes of \d+ bytes"),
        ({"mode": 7}, "tables of the unknown kind 7"),
        ({"factor": 16}, "cannot follow"),
        ({"color": 9}, "cannot follow"),
        ({"tables": bytes(4)}, "made with the tables 00000000"),
        ({"model": bytes(8)}, "made by the model 0000000000000000"),
    ],
)
def test_forged_headers_are_refused(codec, change, message):
    header, codes, streams = layered.read(codec.compress(noise(40, 50)))
    data = layered.seal(replace(header, **change), [codes, *streams])
    with pytest.raises(CodecError, match=message):
        codec.decompress(data)


def test_random_streams_decode_or_are_refused(codec):
    header, codes, streams = layered.read(codec.compress(noise(40, 50)))
    draw = np.random.default_rng(0)
    for _ in range(50):
        made = [draw.bytes(max(1, len(stream) + draw.integers(-3, 4))) for stream in [codes, *streams]]
        try:
            layers = hybrid.decode(header, made[0], made[1:], codec.tables)
        except CodecError:
            continue
        assert layers.rest.shape == (hybrids.DIM, 5, 7)


def test_a_file_of_another_kind_of_model_is_refused(codec, vector):
    with pytest.raises(CodecError, match="was made by the model"):
        vector.decompress(codec.compress(noise(8, 8)))
    with pytest.raises(CodecError, match="was made by the model"):
        codec.decompress(vector.compress(noise(8, 8)))
    with pytest.raises(ConfigError, match="hybrid models alone have"):
        vector.compress(noise(8, 8), CodecSettings(quality=50))
    with pytest.raises(ConfigError, match="no coefficients"):
        vector.decompress(vector.compress(noise(8, 8)), preview=True)


def test_scales_are_integer_arithmetic(codec):
    """The float64 products give what integers give, in whatever order they are summed."""
    tables = hybrids.scales(codec)
    codes = np.random.default_rng(1).integers(0, hybrids.CODES, (hybrids.GROUPS, 5, 4))
    a = np.zeros((7, 6, len(tables.embedding_bias)), np.int64)
    a[1:-1, 1:-1] = tables.embedding_bias + sum(e[c].astype(int) for e, c in zip(tables.embeddings, codes, strict=True))
    a[1:-1, 1:-1] = a[1:-1, 1:-1].clip(0, 2**15 - 1)
    near, out = tables.near.astype(int).reshape(3, 3, a.shape[2], -1), tables.out.astype(int)
    for y, x in ((0, 0), (2, 1), (4, 3)):
        h = sum(a[y + i, x + j] @ near[i, j] for i in range(3) for j in range(3))
        h = ((h >> 10) + tables.near_bias).clip(0, 2**15 - 1)
        expected = ((h @ out >> 10) + tables.out_bias).reshape(4, 4, tables.dim)
        found = tables.log_scales(tables.hidden(codes), np.arange(tables.dim), (20, 16))
        np.testing.assert_array_equal(found[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4], expected.transpose(2, 0, 1))
    classes = tables.classes(np.array([-(2**15), -1280, -1217, -1216, 0, 2**15 - 1], np.int16), 128)
    assert classes.tolist() == [0, 0, 0, 1, 20, 63]


KERNELS = [{"OPENBLAS_CORETYPE": "Prescott"}, {"OPENBLAS_CORETYPE": "Haswell"}, {"OPENBLAS_NUM_THREADS": "2"}]
CLASSES = """
import hashlib, sys
from pathlib import Path
import numpy as np
from hybridvq.codec import load_tables
tables = load_tables(Path(sys.argv[1])).scales
codes = np.random.default_rng(0).integers(0, 6, (2, 40, 60))
found = tables.log_scales(tables.hidden(codes), np.arange(tables.dim), (160, 240))
print(hashlib.sha256(tables.classes(found, 100).tobytes()).hexdigest())
"""


def test_every_processor_and_thread_count_finds_the_same_classes(codec, tmp_path):
    codec.tables.save(tmp_path)
    assert load_tables(tmp_path).digest == codec.tables.digest
    found = set()
    for env in KERNELS:
        command = [sys.executable, "-c", CLASSES, str(tmp_path)]
        found.add(subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | env).stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("counts", np.ones((64, 128), np.uint32)),
        ("group", np.full(hybrids.DIM, 2, np.uint32)),
        ("out", np.zeros((3, 4), np.int16)),
    ],
)
def test_tables_that_do_not_fit_are_refused(codec, tmp_path, name, value):
    replace(codec.tables, scales=replace(hybrids.scales(codec), **{name: value})).save(tmp_path)
    with pytest.raises(CodecError, match=f"scales.{name}"):
        load_tables(tmp_path)


def test_a_broken_encoder_is_said_to_be():
    broken = hybrids.codec()
    with torch.no_grad():
        broken.tokenizer.encoder.linear.weight.fill_(torch.nan)
    with pytest.raises(DataError, match="holds NaN"):
        broken.compress(noise(8, 8))


def test_the_two_grids_agree():
    assert scales.COARSER == COARSER


def test_steps_of_a_byte():
    assert [scales.step_of(byte) for byte in (0, 128, 192)] == [0.0625, 1.0, 4.0]
    assert all(scales.step_byte(scales.step_of(byte)) == byte for byte in range(256))


def test_the_commands_fit_compress_and_decompress(tmp_path, capsys):
    hybrids.tokenizer().save_pretrained(tmp_path / "model")
    Image.fromarray(models.photo(40, 50)).save(tmp_path / "a.png")
    fit = f"fit-codec {tmp_path}/model --data photos --size 64 --images 4 --steps 3"
    assert main(fit.split()) == 0
    assert main(f"compress {tmp_path}/a.png --model {tmp_path}/model -o {tmp_path}/a.hvq --quality 90".split()) == 0
    shown = {}
    for flags in ("", "--preview", "--preview --draw --seed 3 --temperature 0.5"):
        out = tmp_path / f"{len(shown)}.png"
        assert main(f"decompress {tmp_path}/a.hvq --model {tmp_path}/model -o {out} {flags}".split()) == 0
        shown[flags] = read_image(out).tobytes()
    assert len(set(shown.values())) == 3
    capsys.readouterr()
    for flags in ("--seed 3", "--preview --temperature 0.5"):
        assert main(f"decompress {tmp_path}/a.hvq --model {tmp_path}/model -o {tmp_path}/x.png {flags}".split()) == 2
        assert "are of what is drawn; give --draw with them" in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()
    assert main(f"info {tmp_path}/a.hvq".split()) == 0
    assert "4 of 4 streams of coefficients" in capsys.readouterr().out
