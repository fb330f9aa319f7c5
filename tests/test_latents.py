"""The table of latents: its side channel, its neighbors, and a whole plan that ends in a page."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax
from scipy.stats import logistic

from hybridvq import ConfigError, Tokenizer, open_images
from hybridvq.documents import read_json, to_json
from hybridvq.quantizers import QUANTIZERS, HybridQuantizer, Tokens
from hybridvq.quantizers.gaussian import image_generators

TINY = {
    "vq-512": ("vector", {"normalize": True, "beta": 0.0, "codebook_size": 8}),
    "vq-4096": ("vector", {"normalize": True, "beta": 0.0, "codebook_size": 16}),
    "gain-shape": ("gain-shape", {"codebook_size": 8, "levels": 4, "stages": 2, "code_dim": 4, "rate_weight": 0.04}),
    "scalar": ("hybrid", {"groups": 0}),
    "side-channel": ("side-channel", {"numbers": 4, "width": 8}),
    "hybrid": ("hybrid", {"groups": 2, "codebook_size": 8, "code_dim": 2, "width": 8}),
}


@pytest.fixture(scope="module", autouse=True)
def registered():
    """With the side channel's name known, as importing the plan makes it, and unknown to other tests."""
    from experiments.latents import plan, side_channel

    QUANTIZERS["side-channel"] = side_channel.SideChannelQuantizer
    yield plan
    del QUANTIZERS["side-channel"]


def vectors(height=8, width=8, dim=5):
    return 3 * torch.randn(3, dim, height, width, generator=torch.Generator().manual_seed(1))


def side_channel(spoken=True, aside_steps=0):
    """One that says something of the coefficients, or, as it starts, nothing."""
    torch.manual_seed(0)
    made = QUANTIZERS["side-channel"](5, numbers=3, width=8, aside_steps=aside_steps)
    torch.nn.init.normal_(made.structure.encoder[-1].weight, std=0.5)
    if spoken:
        torch.nn.init.normal_(made.structure.decoder[-1].weight, std=0.2)
    return made


def mixture_bits(mixture, value, step=1.0):
    """Bits of numbers (B, C, h, w), by scipy."""
    means, scales, shares = (4 * part.detach().double().numpy()[:, None, None] for part in mixture.parameters())
    edges = [logistic(means, np.exp(scales)).cdf(value.double().numpy()[..., None] + s * step / 2) for s in (1, -1)]
    return -np.log2(((edges[0] - edges[1]) * softmax(shares, -1)).sum(-1))


def logistic_bits(value, step, mean, log_scale):
    f = logistic(mean.double().numpy(), np.exp(log_scale.double().numpy()))
    return -np.log2(f.cdf(value.double().numpy() + step / 2) - f.cdf(value.double().numpy() - step / 2))


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 10)])
@torch.no_grad()
def test_the_bits_of_numbers_and_coefficients_are_those_of_scipy(height, width):
    made, z, step = side_channel().eval(), vectors(height, width), 1.3
    out = made(z, step)
    mean, log_scale = made.predict(out.tokens)
    numbers = (out.tokens.codes - 128).float()
    assert len(numbers.unique()) > 2
    expected = mixture_bits(made.structure.prior, numbers).sum((1, 2, 3))
    expected += logistic_bits(out.z_hat, step, mean, log_scale).sum((1, 2, 3))
    np.testing.assert_allclose(out.rate.bits.numpy(), expected, rtol=1e-3)
    assert out.rate.bits.isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 1), (5, 10)])
@torch.no_grad()
def test_numbers_and_coefficients_are_enough(height, width):
    made, z = side_channel().eval(), vectors(height, width)
    out = made(z, 0.7)
    assert out.tokens.codes.shape == (3, 3, math.ceil(height / 4), math.ceil(width / 4))
    again = made.dequantize(Tokens(**{name: part.clone() for name, part in out.tokens.parts.items()}))
    torch.testing.assert_close(again, out.z_hat)
    alone = made.dequantize(Tokens(codes=out.tokens.codes))[..., :height, :width]
    torch.testing.assert_close(alone, made.predict(out.tokens)[0])
    with pytest.raises(ConfigError, match="they go from 0 to 255"):
        made.dequantize(Tokens(codes=out.tokens.codes + 256))


@pytest.mark.parametrize("aside", [True, False])
def test_the_numbers_have_a_rate_with_a_gradient(aside):
    """While the decoder says nothing of them, what reaches their encoder is their own bits."""
    made, z = side_channel(spoken=False, aside_steps=aside).train(), vectors().requires_grad_()
    step, stream = int(made.structure.steps), 1 << 40
    out = made(z, 1.0)
    assert (out.tokens.codes is None) == aside
    bits = out.rate.aside_bits if aside else out.rate.bits
    weight = made.structure.encoder[-1].weight
    slope = torch.autograd.grad(bits.sum(), weight, retain_graph=True)[0]

    y = 4 * made.structure.encoder(z)
    noise = torch.stack(
        [torch.empty(y.shape[1:]).uniform_(-0.5, 0.5, generator=g) for g in image_generators(step + stream, y)]
    )
    own = made.structure.prior.bits(y + noise, torch.ones(1, 1, 1, 1))
    np.testing.assert_allclose(
        own.detach().numpy(), mixture_bits(made.structure.prior, (y + noise).detach()), rtol=1e-3
    )
    torch.testing.assert_close(slope, torch.autograd.grad(own.sum(), weight)[0])
    assert slope.abs().sum() > 0
    shaped = torch.autograd.grad(bits.sum(), z, allow_unused=True)[0]
    assert (shaped is None) == aside, "what learns aside has no say in z"


def test_the_decoder_reads_rounded_numbers_with_a_straight_through_gradient():
    made, z = side_channel().train(), vectors()
    y = made.structure.encoder(z)
    rounded = (4 * y).round().clamp(-128, 127) / 4
    codes, e, _, _ = made.structure.reduce(y)
    torch.testing.assert_close(e, rounded)
    torch.testing.assert_close(made.structure.embed(codes), rounded)
    guess = made.structure(z, False)
    assert torch.autograd.grad(guess.mean.sum(), made.structure.encoder[-1].weight)[0].abs().sum() > 0


def test_both_structures_have_the_same_networks():
    def shapes(module):
        return [(type(layer), [tuple(p.shape) for p in layer.parameters()]) for layer in module]

    numbers = QUANTIZERS["side-channel"](5, numbers=6, width=8).structure
    codes = HybridQuantizer(5, groups=2, code_dim=3, width=8).structure
    assert shapes(numbers.encoder) == shapes(codes.encoder)
    assert shapes(numbers.decoder) == shapes(codes.decoder)


def context(dim=3):
    from experiments.latents.context import Context

    torch.manual_seed(0)
    made = Context(torch.rand(dim) + 0.5, width=16)
    torch.nn.init.normal_(made.layers[-1].weight, std=0.3)
    return made


def test_no_value_has_a_say_in_what_is_decoded_before_it():
    made, (height, width) = context(), (4, 6)
    torch.manual_seed(1)
    z_hat, mean, log_scale = torch.randn(3, 2, 3, height, width)
    step = torch.tensor([0.5, 2.0])
    before = torch.cat(made.distributions(z_hat, mean, log_scale, step), 1)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    for y in range(height):
        for x in range(width):
            other = z_hat.clone()
            other[0, :, y, x] += 1
            changed = (torch.cat(made.distributions(other, mean, log_scale, step), 1) != before).any(1)
            assert not changed[1].any(), "another image"
            assert not (changed[0] & (columns + 2 * rows <= x + 2 * y)).any(), "on its own diagonal or an earlier one"
            if x + 1 < width:
                assert changed[0, y, x + 1]


@torch.no_grad()
def test_a_context_that_corrects_nothing_leaves_the_bits():
    from experiments.latents.context import Context

    made, context = side_channel().eval(), Context(torch.ones(5))
    out = made(vectors(), 0.9)
    torch.testing.assert_close(context.bits(out, made), out.rate.bits)
    scalar = HybridQuantizer(5, groups=0).eval()
    out = scalar(vectors(), 0.9)
    expected = logistic_bits(out.z_hat, 0.9, torch.zeros(()), torch.zeros(())).sum((1, 2, 3))
    np.testing.assert_allclose(context.bits(out, scalar).numpy(), expected, rtol=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs to train on and to measure: smooth, with some noise."""
    made = tmp_path_factory.mktemp("data")
    rng, t = np.random.default_rng(0), np.linspace(0, 6, 184)
    for side, count in (("train", 2), ("test", 1), ("measure", 2)):
        (made / side).mkdir()
        for number in range(count):
            wave = 90 * np.sin(t[:176, None] + number)[..., None] * np.cos(t[None, :, None] * [1.0, 1.2, 0.7])
            pixels = 128 + wave + rng.normal(0, 6, (176, 184, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(made / side / f"{number}.png")
    return made


@pytest.fixture(scope="module")
def planned(folder, tmp_path_factory, registered):
    """A whole plan of a few steps, and the words that make it again."""
    from experiments.latents import context, measure
    from experiments.latents.__main__ import main

    out = tmp_path_factory.mktemp("runs")
    words = f"--out {out} --seeds 0 --data {folder} --steps 5 --batch-size 4 --size 32 --short-side 176 --fit-steps 3"
    words = [*words.split(), "--measure", str(folder / "measure"), "--name", "waves", "--page", str(out / "page")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registered, "NETWORKS", TINY)
        patched.setattr(context, "CROPS", 3)
        patched.setattr(measure, "STEPS", (0.7, 2.0))
        patched.setattr(measure, "JPEG_QUALITIES", (5, 40, 90))
        main(words)
        yield out, words


def test_a_plan_ends_in_a_page(planned, registered):
    out, _ = planned
    page, result = (out / "page" / "README.md").read_text(), read_json(out / "page" / "result.json")
    assert (out / "page" / "rate.svg").read_bytes().startswith(b"<?xml")
    assert result["setting"]["steps"] == 5
    (measured,) = result["sets"]
    assert measured["photographs"] | {"fingerprint": ""} == {
        "name": "waves", "fingerprint": "", "images": 2, "megapixels": 0.06
    }  # fmt: skip
    assert sorted(run["row"] for run in measured["runs"]) == sorted(row.name for row in registered.ROWS)
    for row in registered.ROWS:
        counted = "ideal code lengths" if row.counts_bits else "files"
        assert f"| {row.title} | {counted} | 1 |" in page
    runs = {run["row"]: run["points"] for run in measured["runs"]}
    for plain in ("scalar", "side-channel", "hybrid"):
        assert [p["psnr_db"] for p in runs[plain]] == [p["psnr_db"] for p in runs[f"{plain}-context"]]
        rates = [point["rate_bpp"] for point in runs[plain]]
        assert rates == sorted(rates, reverse=True)


def test_files_and_ideal_lengths_are_those_of_each_image(planned, folder):
    from hybridvq import Codec, load_tokenizer
    from hybridvq.pixels import to_input

    out, _ = planned
    (place,) = (out / "measured").iterdir()
    pixels = [np.array(Image.open(path)) for path in sorted((folder / "measure").iterdir())]
    codec = Codec.load(out / "vq-512-0" / "coded", "cpu")
    files = [codec.compress(image) for image in pixels]
    last = read_json(place / "vq-512-0.json")["points"][-1]
    assert last["bits"] == [8 * len(file) for file in files]
    shown = [np.asarray(codec.decompress(file), float) for file in files]
    errors = [np.mean((a - b) ** 2) for a, b in zip(shown, pixels, strict=True)]
    np.testing.assert_allclose(last["psnr_db"], 10 * np.log10(255**2 / np.array(errors)), rtol=1e-5)
    tokenizer = load_tokenizer(out / "hybrid-0")
    with torch.no_grad():
        x = torch.stack([to_input(image, torch.device("cpu")) for image in pixels])
        bits = tokenizer.quantize(x, 2.0).rate.bits
    (point,) = (p for p in read_json(place / "hybrid-0.json")["points"] if p["setting"] == "step 2")
    np.testing.assert_allclose(point["bits"], bits, rtol=1e-3)


def test_what_is_done_is_not_done_again(planned, registered, monkeypatch):
    from experiments.latents import measure
    from experiments.latents.__main__ import main

    from hybridvq.training.module import TokenizerTraining

    def again(*_, **__):
        raise AssertionError("done again")

    out, words = planned
    page = (out / "page" / "README.md").read_bytes()
    monkeypatch.setattr(TokenizerTraining, "training_step", again)
    for module, name in ((registered, "fit_tables"), (registered, "fit_context"), (measure, "points")):
        monkeypatch.setattr(module, name, again)
    main(words)
    assert (out / "page" / "README.md").read_bytes() == page


def test_other_settings_do_not_mix(planned):
    from experiments.latents.__main__ import main

    _, words = planned
    with pytest.raises(SystemExit, match="begun with another recipe, seed or images"):
        main([*words, "--steps", "6"])
    with pytest.raises(SystemExit, match="scalar-7 holds no model; train it first with --data"):
        main([word if word != "--data" else "--name" for word in words] + ["--seeds", "7", "--rows", "scalar"])


def test_neighbors_learn_to_save_bits(folder, monkeypatch):
    from experiments.latents import context

    monkeypatch.setattr(context, "CROPS", 4)
    torch.manual_seed(0)
    tokenizer = Tokenizer(8, 8, "hybrid", {"groups": 0}, network="photo").eval()
    images = open_images(str(folder), "train", size=32, short_side=176)
    before, after = (context.fit_context(tokenizer, images, 0, steps) for steps in (1, 60))
    with torch.no_grad():
        x = torch.from_numpy(images.pixels(0)).movedim(-1, 0)[None] / 127.5 - 1
        out = tokenizer.quantize(x, 1.0)
        assert after.bits(out, tokenizer.quantizer) < 0.9 * before.bits(out, tokenizer.quantizer)


JPEG = [(0.1 * 2**i, 20.0 + 3 * i) for i in range(5)]


def measured(out, name, rows):
    """Curves of each row and seed, so many times JPEG's bits, in decibels moved by `up`."""

    def points(factor, up=0.0):
        return [
            {"setting": f"rung {i}", "bits": [factor * b * 64, factor * b * 192], "psnr_db": [q + up - 1, q + up + 1]}
            for i, (b, q) in enumerate(JPEG)
        ]

    place = out / "measured" / name
    place.mkdir(parents=True)
    (place / "about.json").write_bytes(to_json({"name": name, "fingerprint": name, "pixels": [64, 192]}))
    (place / "jpeg-420.json").write_bytes(to_json({"points": points(1)}))
    for row, (factors, up) in rows.items():
        for seed, factor in enumerate(factors):
            run = {"row": row, "seed": seed, "weights": "", "counted": "files", "points": points(factor, up)}
            (place / f"{row}-{seed}.json").write_bytes(to_json(run))
    return out


@pytest.fixture
def page_of(tmp_path):
    from experiments.latents.page import page, read

    training = {"steps": 6000, "batch_size": 8, "learning_rate": 6e-4}
    model = {"network": "photo", "dim": 96, "downsampling": 8}
    begun = {"model": model, "training": training, "seed": 0, "data": {"fingerprint": "f", "size": 128}}

    def write(**rows):
        (tmp_path / "a-0").mkdir()
        (tmp_path / "a-0" / "recipe.json").write_bytes(to_json(begun))
        return page(read(measured(tmp_path, "some", {name.replace("_", "-"): row for name, row in rows.items()})))

    write.begun, write.out = begun, tmp_path
    return write


def test_means_and_deviations_over_seeds(page_of):
    page = page_of(scalar=([0.8, 0.9, 0.7], 0), hybrid=([0.6, 0.72, 0.63], 0), vq_512=([1.5], 0))
    assert f"| 3 | 0.070 to 1.440 | 20.00 to 32.00 | -20.0% ± {np.std([80, 90, 70], ddof=1):.1f} |" in page
    assert "| VQ-VAE, K=512 | files | 1 | 0.150 to 2.400 | 20.00 to 32.00 | +50.0% |" in page
    ratios = [0.6 / 0.8, 0.72 / 0.9, 0.63 / 0.7]
    assert f"| scalar | {np.mean(ratios):.3f} ± {np.std(ratios, ddof=1):.3f} |" in page
    assert "| VQ-VAE, K=512 | 0.400 |" in page, "over the seeds that both have"
    assert "| hybrid | rung 0 | 0.065 | 20.00 |" in page, "the mean over seeds"


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ([0.6, 0.6], "hybrid takes fewer bits: 0.750 ± 0.000 times those of scalar."),
        ([0.9, 0.9], "hybrid takes more bits: 1.125 ± 0.000 times those of scalar."),
        ([0.8, 0.8], "hybrid takes as many bits: 1.000 ± 0.000 times those of scalar"),
        (
            [0.7, 0.86],
            "hybrid takes fewer bits: 0.975 ± 0.141 times those of scalar, which is within the deviation over seeds.",
        ),
    ],
)
def test_the_page_says_what_wins(page_of, factors, said):
    page = page_of(scalar=([0.8, 0.8], 0), gain_shape=([2.0, 2.0], 0), hybrid=(factors, 0), vq_512=([1.0, 1.0], -40))
    assert f"Of the other rows, **scalar** stands best beside **hybrid**. At equal PSNR, {said}" in page
    assert page.rstrip().count("because no quality is reached by both: VQ-VAE, K=512.") == 1
    assert "| VQ-VAE, K=512 | – |" in page


def test_rows_with_neighbors_are_also_set_apart(page_of):
    page = page_of(scalar=([0.8], 0), scalar_context=([0.5], 0), hybrid=([0.6], 0), hybrid_context=([0.4], 0))
    assert "Of the other rows without neighbors, **scalar** stands best beside **hybrid**" in page
    assert "fewer bits: 0.750 times those of scalar." in page
    assert "Of the other rows, **scalar, neighbors** stands best beside **hybrid**" in page
    assert "more bits: 1.200 times those of scalar, neighbors." in page
    assert "hybrid, neighbors takes fewer bits: 0.800 times" in page


def test_runs_that_were_not_trained_alike_share_no_page(page_of):
    from experiments.latents.page import setting_of

    with pytest.raises(ConfigError, match="holds no runs"):
        setting_of(page_of.out)
    page_of(scalar=([0.8], 0))
    other = page_of.begun | {"training": page_of.begun["training"] | {"steps": 5}}
    (page_of.out / "b-0").mkdir()
    (page_of.out / "b-0" / "recipe.json").write_bytes(to_json(other))
    with pytest.raises(ConfigError, match="differ in steps, network or photographs; give each setting its own --out"):
        setting_of(page_of.out)


def test_every_row_trains_alike(registered):
    recipes = {name: registered.recipe_of(name, 300) for name in registered.NETWORKS}
    for name, recipe in recipes.items():
        quantizer, options = registered.NETWORKS[name]
        assert (recipe.model.quantizer, recipe.model.network, recipe.model.dim) == (quantizer, "photo", 96)
        counting = quantizer in registered.COUNTING
        assert recipe.training.loss == ("rate-distortion" if counting else "psnr")
        assert recipe.model.options == options | ({"step_range": [0.308, 2.83], "aside_steps": 100} if counting else {})
        alike = {key: value for key, value in vars(recipe.training).items() if key != "loss"}
        assert alike == {k: v for k, v in vars(recipes["hybrid"].training).items() if k != "loss"}
    assert list(registered.runs_of(registered.ROWS, [0, 1]))[:7] == [(name, 0) for name in recipes] + [("vq-512", 1)]
