import math

import numpy as np
import pytest
import reference
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hybridvq import ConfigError, ShapeError, VectorQuantizer
from hybridvq.quantizers import Tokens, nearest_code, straight_through
from hybridvq.quantizers.base import SLAB_ELEMENTS, nearest_direction


@pytest.fixture
def z():
    return torch.randn(2, 6, 3, 4, generator=torch.Generator().manual_seed(0))


def quantizer(**options):
    torch.manual_seed(1)
    made = VectorQuantizer(6, **({"codebook_size": 11, "init": "uniform", "restart_every": 0} | options))
    with torch.no_grad():
        made.codebook.weight.copy_(torch.randn(made.codebook.weight.shape))
    return made


def test_codes_and_losses_match_the_formulas(z):
    vq = quantizer(beta=0.7)
    out = vq(z)
    codes = vq.codebook.weight.detach().double().numpy()
    k = reference.nearest(reference.rows(z), codes)
    assert (out.tokens.codes.flatten().numpy() == k).all()
    np.testing.assert_allclose(reference.rows(out.z_hat), codes[k], rtol=1e-6)
    codebook, commitment = reference.vq_losses(reference.rows(z), codes[k], beta=0.7)
    assert out.losses["codebook"].item() == pytest.approx(codebook, rel=1e-5)
    assert out.losses["commitment"].item() == pytest.approx(commitment, rel=1e-5)


def test_costs_are_added_to_the_squared_distances():
    generator = torch.Generator().manual_seed(5)
    z, codes = torch.randn(200, 3, generator=generator), torch.randn(50, 3, generator=generator)
    costs = torch.rand(50, generator=generator)
    distances = torch.cdist(z.double(), codes.double()).square() + costs
    assert torch.equal(nearest_code(z, codes, costs), distances.argmin(1))


def test_matches_vector_quantize_pytorch(z):
    import vector_quantize_pytorch

    vq = quantizer(beta=0.25)
    other = vector_quantize_pytorch.VectorQuantize(
        dim=6,
        codebook_size=11,
        accept_image_fmap=True,
        learnable_codebook=True,
        ema_update=False,
        commitment_weight=0.25,
    ).eval()
    with torch.no_grad():
        other._codebook.embed.copy_(vq.codebook.weight[None])
    z_hat, codes, _ = other(z)
    out = vq(z)
    assert torch.equal(out.tokens.codes[:, 0], codes)
    torch.testing.assert_close(out.z_hat, z_hat)


def test_moving_averages_match_vector_quantize_pytorch(z):
    import vector_quantize_pytorch

    vq = quantizer(learn="ema", decay=0.8)
    other = vector_quantize_pytorch.VectorQuantize(
        dim=6, codebook_size=11, accept_image_fmap=True, decay=0.8, threshold_ema_dead_code=0, eps=1e-5
    ).train()
    start = vq.codebook.weight.clone()
    other._codebook.embed.copy_(start[None])
    other._codebook.embed_avg.copy_(start[None])
    other._codebook.cluster_size.fill_(1.0)
    other._codebook.initted.fill_(True)
    vq.codebook.ema_sums.copy_(start)
    for step in range(5):
        batch = z + 0.1 * step
        vq(batch)
        other(batch)
    torch.testing.assert_close(vq.codebook.weight, other._codebook.embed[0], rtol=1e-4, atol=1e-5)


def test_gradient_is_straight_through_and_beta_weighs_the_commitment(z):
    vq = quantizer(beta=0.7)
    z.requires_grad_()
    out = vq(z)
    v = torch.randn_like(z)
    (grad,) = torch.autograd.grad(out.z_hat, z, v, retain_graph=True)
    torch.testing.assert_close(grad, v)
    (grad,) = torch.autograd.grad(out.losses["commitment"], z, retain_graph=True)
    torch.testing.assert_close(grad, 0.7 * 2 * (z - out.z_hat).detach() / z.numel())
    assert torch.autograd.grad(out.losses["codebook"], z, retain_graph=True, allow_unused=True) == (None,)
    assert torch.autograd.grad(out.losses["commitment"], vq.codebook.weight, allow_unused=True) == (None,)


def test_only_chosen_codes_get_a_gradient(z):
    vq = quantizer()
    out = vq(z)
    out.losses["codebook"].backward()
    moved = vq.codebook.weight.grad.abs().sum(1) > 0
    assert set(moved.nonzero().flatten().tolist()) == set(out.tokens.codes.flatten().tolist())


def test_moving_average_codes_are_not_trained_by_gradient(z):
    vq = quantizer(learn="ema")
    assert not list(vq.parameters())
    assert set(vq(z).losses) == {"commitment"}


def test_tokens_are_enough(z):
    vq = quantizer().eval()
    out = vq(z)
    assert torch.equal(vq.dequantize(Tokens(codes=out.tokens.codes.clone())), out.z_hat)
    assert not out.tokens.has_floats


def test_straight_through_keeps_short_codes_exact():
    z, e = torch.tensor([1.2345678]), torch.tensor([1.2345678e-5])
    assert torch.equal(straight_through(z, e), e)


def test_nearest_code_is_exact_across_slabs():
    generator = torch.Generator().manual_seed(3)
    codes = torch.randn(2048, 4, generator=generator)
    z = torch.randn(SLAB_ELEMENTS // 2048 + 3, 4, generator=generator)
    expected = torch.cdist(z.double(), codes.double()).argmin(1)
    assert torch.equal(nearest_code(z, codes), expected)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest result of any operation holds."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, tuple | list) else [result]:
            if isinstance(part, torch.Tensor):
                self.numbers = max(self.numbers, part.numel())
        return result


@pytest.mark.parametrize("search", [nearest_code, nearest_direction])
def test_the_search_never_holds_the_whole_table(search):
    z, codes = torch.randn(4096, 2), torch.randn(1024, 2)
    with Largest() as largest:
        search(z, codes)
    assert largest.numbers <= SLAB_ELEMENTS < len(z) * len(codes)


def test_ties_go_to_the_lowest_index():
    codes = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert nearest_code(torch.tensor([[1.0, 0.0]]), codes).item() == 0
    many = torch.eye(8).repeat(64, 1)
    for search in (nearest_code, nearest_direction):
        assert torch.equal(search(torch.eye(8).repeat(40, 1), many), torch.arange(8).repeat(40))


def test_kmeans_starts_from_the_data():
    centers = torch.tensor([[10.0, 0.0], [0.0, 10.0], [-10.0, 0.0], [0.0, -10.0]])
    z = centers.repeat(16, 1) + 0.01 * torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    vq = VectorQuantizer(2, codebook_size=4, init="kmeans", restart_every=1)
    for _ in range(4):
        vq(z.T.reshape(1, 2, 8, 8))
    found = vq.codebook.weight.detach()
    assert torch.cdist(centers, found).min(1).values.max() < 0.1


@pytest.mark.parametrize("learn", ["ema", "gradient"])
def test_dead_codes_restart_from_encoder_outputs(z, learn):
    """A moving average at one, a parameter a tenth of the way from the code vector in use that is nearest to one."""
    vq = quantizer(restart_every=3, learn=learn, decay=1 - 1e-7).train()
    with torch.no_grad():
        vq.codebook.weight[:5] = 1e3
        if learn == "ema":
            vq.codebook.ema_sums.copy_(vq.codebook.weight)
    for _ in range(3):
        vq(z)
        assert vq.codebook.restarted is None
    vq(z)
    assert vq.codebook.restarted[:5].all()
    rows = torch.tensor(reference.rows(z)).float()
    if learn == "gradient":
        used = vq.codebook.weight.detach()[~vq.codebook.restarted]
        rows = used[torch.cdist(rows, used).argmin(1)].lerp(rows, 0.1)
    assert torch.cdist(vq.codebook.weight[:5].detach(), rows).min(1).values.max() < 1e-5
    vq(z)
    assert vq.codebook.restarted is None


def test_a_code_is_dead_if_none_chose_it_since_the_last_check():
    vq = VectorQuantizer(1, codebook_size=2, init="uniform", restart_every=2).train()
    with torch.no_grad():
        vq.codebook.weight.copy_(torch.tensor([[-1.0], [1.0]]))
    both, first = torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), torch.tensor([-1.0, -1.0]).view(1, 1, 1, 2)
    for z, counts in ((both, [1, 1]), (both, [2, 2]), (first, [2, 0]), (first, [4, 0])):
        vq(z)
        assert vq.codebook.restarted is None
        assert vq.codebook.recent_counts.tolist() == counts
    vq(first)
    assert vq.codebook.restarted.tolist() == [False, True]


def test_a_restarted_average_starts_again(z):
    vq = quantizer(learn="ema", restart_every=1, decay=1 - 1e-7).train()
    vq.codebook.weight[0] = 1e3
    vq.codebook.ema_sums[0] = 1e3 * 50
    vq.codebook.ema_counts[0] = 50
    vq(z)
    vq(z)
    assert vq.codebook.ema_counts[0] == pytest.approx(1.0)
    torch.testing.assert_close(vq.codebook.ema_sums[0], vq.codebook.weight[0], rtol=1e-3, atol=1e-3)


def test_evaluation_leaves_the_codebook_alone(z):
    vq = quantizer(learn="ema", restart_every=1).eval()
    before = {k: v.clone() for k, v in vq.state_dict().items()}
    vq(z)
    assert all(torch.equal(before[k], v) for k, v in vq.state_dict().items())


def test_the_search_runs_in_float32_under_autocast(z):
    vq = quantizer()
    with torch.autocast("cpu", torch.bfloat16):
        out = vq(z)
    assert out.z_hat.dtype == torch.float32
    assert torch.equal(out.tokens.codes, vq(z).tokens.codes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -1.0}, "beta is -1"),
        ({"learn": "magic"}, "learn is 'magic'"),
        ({"init": "zeros"}, "init is 'zeros'"),
        ({"codebook_size": 0}, "codebook_size is 0"),
        ({"codebook_size": 2**40}, "codebook_size is 1099511627776; it must be a whole number from 1 to 1048576"),
        ({"codebook_size": 2.0}, "codebook_size is 2.0"),
        ({"beta": float("nan")}, "beta is nan"),
        ({"beta": "1e-3"}, "beta is '1e-3'; it must be a number from 0 to 1e[+]06"),
        ({"decay": 5}, "decay is 5; it must be a number from 0 to below 1"),
        ({"decay": float("nan")}, "decay is nan"),
        ({"restart_every": -5}, "restart_every is -5"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        VectorQuantizer(6, **options)


@pytest.mark.parametrize("wrong", [-1, 11])
def test_codes_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"one of the codes is {wrong}; they go from 0 to 10"):
        quantizer().dequantize(Tokens(codes=torch.full((1, 1, 2, 2), wrong)))


def test_a_wrong_shape_is_named():
    with pytest.raises(ShapeError, match=r"\(1, 5, 2, 2\).*6"):
        quantizer()(torch.zeros(1, 5, 2, 2))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_heads_and_cosine_match_vector_quantize_pytorch(z, separate, distance):
    import vector_quantize_pytorch

    cosine = distance == "cosine"
    torch.manual_seed(0)
    vq = VectorQuantizer(6, 11, learn="ema", decay=0.8, init="uniform", restart_every=0, heads=2, distance=distance,
                         share_codes=not separate, beta=1.0)  # fmt: skip
    other = vector_quantize_pytorch.VectorQuantize(
        dim=6, codebook_size=11, codebook_dim=3, heads=2, separate_codebook_per_head=separate, use_cosine_sim=cosine,
        accept_image_fmap=True, decay=0.8, threshold_ema_dead_code=0, eps=1e-5, rotation_trick=False,
    ).train()  # fmt: skip
    books = vq.codebooks if separate else [vq.codebook]
    start = torch.stack([torch.randn(11, 3) for _ in books])
    start = torch.nn.functional.normalize(start, dim=-1) if cosine else start
    for book, vectors in zip(books, start, strict=True):
        book.weight.copy_(vectors)
        book.ema_sums.copy_(vectors)
    other._codebook.embed.copy_(start)
    other._codebook.embed_avg.copy_(start)
    other._codebook.cluster_size.fill_(1.0)
    other._codebook.initted.fill_(True)
    for step in range(3):
        mine, theirs = (z + 0.1 * step).requires_grad_(), (z + 0.1 * step).requires_grad_()
        out, (z_hat, codes, _) = vq.train()(mine), other.train()(theirs)
        assert torch.equal(out.tokens.codes.movedim(1, -1), codes)
        v = torch.randn_like(z)
        torch.testing.assert_close(
            torch.autograd.grad(out.z_hat, mine, v)[0], torch.autograd.grad(z_hat, theirs, v)[0], rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(vq.eval()(z).z_hat, other.eval()(z)[0], rtol=1e-3, atol=1e-4)
    for book, vectors in zip(books, other._codebook.embed, strict=True):
        torch.testing.assert_close(book.vectors, vectors, rtol=1e-3, atol=1e-4)


def test_cosine_codes_start_and_stay_on_the_sphere(z):
    for learn in ("gradient", "ema"):
        vq = VectorQuantizer(6, 5, learn=learn, distance="cosine", restart_every=1)
        for _ in range(3):
            out = vq.train()(100 * z)
        torch.testing.assert_close(vq.codebook.vectors.norm(dim=1), torch.ones(5))
        torch.testing.assert_close(out.z_hat.norm(dim=1), torch.ones(2, 3, 4))


def test_the_first_heads_alone_leave_the_others_zero(z):
    vq = quantizer(heads=3, codebook_size=11)
    tokens = vq.eval()(z).tokens
    whole, part = vq.dequantize(tokens), vq.dequantize(tokens.stages(2))
    assert torch.equal(part[:, :4], whole[:, :4])
    assert not part[:, 4:].any()


def test_heads_divide_the_vector():
    with pytest.raises(ConfigError, match="heads is 4, which does not divide the 6 numbers of a vector"):
        VectorQuantizer(6, heads=4)
    with pytest.raises(ConfigError, match="distance is 'angle'"):
        VectorQuantizer(6, distance="angle")


@pytest.mark.parametrize("learn", ["gradient", "ema"])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_a_rate_weight_adds_the_bits_of_a_running_share(learn, distance):
    torch.manual_seed(0)
    quantizer = VectorQuantizer(4, 8, learn=learn, distance=distance, rate_weight=0.3, restart_every=0, decay=0.9)
    shares = torch.full((8,), 1 / 8)
    for _ in range(30):
        z = torch.randn(2, 4, 5, 5)
        vectors_before = quantizer.codebook.vectors.detach().clone()
        result = quantizer(z)
        if quantizer.codebook.steps > 1:  # the first step starts the vectors from z
            rows = z.movedim(1, -1).reshape(-1, 4)
            rows = F.normalize(rows, dim=1) if distance == "cosine" else rows
            costs = torch.cdist(rows, vectors_before) ** 2 - 0.3 * shares.clamp(min=1e-3 / 8).log2()
            chosen = costs.gather(1, result.tokens.codes.reshape(-1, 1))[:, 0]
            assert (chosen <= costs.min(1).values + 1e-5).all()
        shares = 0.9 * shares + 0.1 * torch.bincount(result.tokens.codes.flatten(), minlength=8) / 50
        assert quantizer.codebook.shares.shares[:, 0].allclose(shares, atol=1e-6)


def test_a_rate_weight_saves_bits_and_costs_error():
    def measured(rate_weight):
        torch.manual_seed(1)
        quantizer = VectorQuantizer(2, 64, learn="ema", rate_weight=rate_weight, restart_every=0)
        for _ in range(120):
            quantizer(torch.randn(4, 2, 8, 8))
        quantizer.eval()
        z = torch.randn(16, 2, 8, 8, generator=torch.Generator().manual_seed(2))
        result = quantizer(z)
        shares = torch.bincount(result.tokens.codes.flatten(), minlength=64) / 1024
        return float(result.error), float(torch.special.entr(shares).sum()) / math.log(2)

    (error, bits), (error_by_rate, bits_by_rate) = measured(0.0), measured(0.3)
    assert bits_by_rate < bits - 0.5
    assert error_by_rate > error


def test_a_code_that_restarts_has_an_even_share_again():
    torch.manual_seed(0)
    quantizer = VectorQuantizer(3, 4, rate_weight=0.2, restart_every=2, init="uniform")
    with torch.no_grad():
        quantizer.codebook.weight[3] = 100.0  # nobody's nearest
    for _ in range(2):
        quantizer(torch.randn(2, 3, 4, 4))
    before = float(quantizer.codebook.shares.shares[3])
    assert before < 0.25
    quantizer(torch.randn(2, 3, 4, 4))
    assert quantizer.codebook.restarted[3]
    expected = 0.99 * 0.25  # and the positions that chose it now
    assert float(quantizer.codebook.shares.shares[3]) >= expected - 1e-6
