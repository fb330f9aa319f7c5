"""Files, Pillow images, arrays and tensors straight in, and the same kind out."""

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import chelsea

import tiny
from hybridvq import Codec, DataError, ShapeError, Tokenizer, tiles
from hybridvq.codec import fit_tables
from hybridvq.files import reconstruct_files


def photo(height=26, width=37):
    return np.ascontiguousarray(chelsea()[:height, :width])


def tokenizer(quantizer="gain-shape", **options):
    torch.manual_seed(0)
    settings = tiny.model(quantizer)
    return Tokenizer(settings.dim, settings.downsampling, quantizer, settings.options | options).eval()


def whole(model, pixels, step=None):
    """The independent reference: numpy's reflection, and the tensor that was always taken."""
    f, (height, width, _) = model.downsampling, pixels.shape
    padded = np.pad(pixels, ((0, -height % f), (0, -width % f), (0, 0)), mode="reflect")
    x = torch.from_numpy(padded).movedim(-1, 0)[None].float() / 127.5 - 1
    with torch.no_grad():
        tokens = model.encode(x, step)
        return tokens, model.decode(tokens)[0, :, :height, :width].movedim(0, -1)


def same(a, b):
    assert {k for k, v in vars(a).items() if v is not None} == {k for k, v in vars(b).items() if v is not None}
    assert all(torch.equal(v, vars(b)[k]) for k, v in vars(a).items() if v is not None)


@pytest.fixture
def kinds(tmp_path):
    """One image in every form."""
    pixels, path = photo(), tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    floats = pixels / np.float32(127.5) - 1
    return [
        str(path),
        path,
        Image.open(path),
        Image.fromarray(pixels).convert("RGBA"),
        pixels,
        floats,
        floats.astype(float),
    ]


def test_every_kind_gives_the_tokens_of_the_whole_image(kinds):
    model = tokenizer()
    expected, _ = whole(model, photo())
    for image in kinds:
        same(model.encode(image), expected)


def test_what_comes_back_is_of_the_kind_that_was_given(kinds):
    model = tokenizer()
    x_hat = whole(model, photo())[1].numpy()
    rounded = ((x_hat.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8)
    for image in kinds:
        back = model.reconstruct(image)
        if isinstance(image, np.ndarray):
            assert (type(back), back.dtype, back.shape) == (np.ndarray, image.dtype, image.shape)
        else:
            assert (back.mode, back.size) == ("RGB", (37, 26))
        if np.asarray(back).dtype == np.uint8:
            assert np.abs(np.asarray(back).astype(int) - rounded).max() <= 1
        else:
            np.testing.assert_allclose(back, x_hat, atol=1e-5)


def test_a_list_of_one_size_is_one_batch(kinds):
    model = tokenizer()
    single, _ = whole(model, photo())
    tokens = model.encode(kinds)
    assert tokens.codes.shape == (len(kinds), *single.codes.shape[1:])
    for i in range(len(kinds)):
        assert torch.equal(tokens.codes[i : i + 1], single.codes)
    back = model.reconstruct(tuple(kinds))
    assert [type(image) for image in back] == [type(model.reconstruct(image)) for image in kinds]
    with torch.enable_grad():
        assert model.decode(tokens).shape == (len(kinds), 3, 28, 40), "tokens serve with gradients too"


def test_a_list_of_several_sizes_is_a_list_of_tokens():
    model, images = tokenizer(), [photo(9, 7), photo(9, 7), photo(), photo(9, 7)]
    tokens = model.encode(images)
    assert isinstance(tokens, list)
    for one, image in zip(tokens, images, strict=True):
        same(one, whole(model, image)[0])
    assert [image.shape for image in model.reconstruct(images)] == [image.shape for image in images]


def test_many_images_are_no_more_than_a_tile_at_once(monkeypatch):
    model, images = tokenizer(), [photo(16, 16)] * 5
    expected = model.encode(images)
    monkeypatch.setattr(tiles, "TILE_PIXELS", 24)
    assert [len(batch) for batch in tiles.batches(images)] == [2, 2, 1]
    same(model.encode(images), expected)


@pytest.mark.parametrize("size", [(26, 37), (8, 8), (1, 1)])
def test_a_tensor_of_any_size_comes_back_as_one(size):
    model, x = tokenizer().train(), torch.from_numpy(photo(*size)).movedim(-1, 0)[None].float() / 127.5 - 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x_hat = model.reconstruct(x.repeat(2, 1, 1, 1))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "no statistics move"
    expected = whole(model.eval(), photo(*size))[1].movedim(-1, 0)
    torch.testing.assert_close(x_hat, torch.stack([expected, expected]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantizer", ["vector", "projected", "frequency", "gain-shape", "fsq", "identity", "gaussian"])
def test_large_images_are_computed_in_tiles(quantizer, monkeypatch, tmp_path):
    """No network sees more than a tile and its margin, and the pixels are those of the whole image."""
    model, seen = tokenizer(quantizer), []
    _, expected = whole(model, photo(70, 90))
    for network in (model.encoder, model.decoder):
        network.register_forward_pre_hook(lambda _, inputs: seen.append(max(inputs[0].shape[2:])))
    monkeypatch.setattr(tiles, "TILE_PIXELS", 32)
    floats = photo(70, 90) / np.float32(127.5) - 1
    back = model.reconstruct(floats)
    assert max(seen) < 64
    wrong = np.abs(back - expected.numpy()) > 1e-4
    assert wrong.mean() < 0.03, "but where a vector lies half-way between two codes"
    Image.fromarray(photo(70, 90)).save(tmp_path / "a.png")
    [file] = reconstruct_files(model, [tmp_path / "a.png"], tmp_path / "out")
    written = np.asarray(Image.open(file.written)).astype(int)
    assert (np.abs(written - (back.clip(-1, 1) + 1) * 127.5) > 1).mean() < 0.03


def test_networks_that_see_everything_take_the_whole_image(monkeypatch):
    model = tokenizer()
    model.encoder = torch.nn.Sequential(model.encoder, torch.nn.GroupNorm(1, model.dim))
    monkeypatch.setattr(tiles, "TILE_PIXELS", 32)
    same(model.encode(photo(70, 90)), whole(model, photo(70, 90))[0])


def test_a_step_reaches_a_hybrid_quantizer():
    model = tokenizer("hybrid")
    for step in (0.5, 2.0):
        same(model.encode(photo(), step), whole(model, photo(), step)[0])
    with pytest.raises(Exception, match="has no step to round to"):
        tokenizer().reconstruct(photo(), 0.5)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.full((4, 4, 3), 255.0), DataError, r"has values from 255 to 255; images lie in \[-1, 1\]"),
        (np.full((4, 4, 3), np.nan), DataError, "holds NaN"),
        (np.zeros((4, 4, 3), int), ShapeError, r"the image is int64 of shape \(4, 4, 3\); give the path of a file"),
        (np.zeros((4, 4), np.uint8), ShapeError, r"uint8 of shape \(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), ShapeError, "at least one pixel"),
        (7, ShapeError, "the image is int; give"),
        ([], ShapeError, "the list of images is empty"),
        ("nowhere.png", DataError, r"nowhere\.png cannot be read as an image \(no such file\)"),
        (Image.new("F", (4, 4)), DataError, "whose range is unknown"),
        (torch.zeros(3, 8, 8), ShapeError, "takes"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(image, error, message):
    for take in (tokenizer().encode, tokenizer().reconstruct):
        with pytest.raises(error, match=message):
            take(image)


def test_a_codec_takes_them_too(kinds):
    model, rng = tokenizer(), np.random.default_rng(0)
    options = tiny.model("gain-shape").options
    symbols = [
        (rng.integers(0, options["codebook_size"], (2, 1, 8, 8)), rng.integers(0, options["levels"], (2, 1, 8, 8)))
    ]
    codec = Codec(model, fit_tables(symbols, model, "0" * 64, steps=1))
    assert len({codec.compress(image) for image in kinds}) == 1
    with pytest.raises(DataError, match="has values from 79 to 192"):
        codec.compress(photo().astype(np.float32))
