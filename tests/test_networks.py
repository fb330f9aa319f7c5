"""The networks against the published description, counted by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn
from torch.nn import functional as F

from hybridvq import ConfigError
from hybridvq.networks import (
    BatchNorm2d,
    Decoder,
    Encoder,
    ResidualBlock,
    TransposedConv2d,
    build_network,
    photo,
)

D = 256
CONV_BN_RELU = [BatchNorm2d, nn.ReLU]
RESIDUAL = [nn.ReLU, nn.Conv2d, BatchNorm2d, nn.ReLU, nn.Conv2d, BatchNorm2d]


def kinds(module):
    return [type(part) for part in module.modules() if not list(part.children())]


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def residual_parameters(d):
    """3x3 convolution, batch norm, 1x1 convolution, batch norm; biases included."""
    return (9 * d * d + d) + 2 * d + (d * d + d) + 2 * d


def test_encoder_layers():
    encoder = Encoder(D)
    assert kinds(encoder) == [nn.Conv2d, *CONV_BN_RELU, nn.Conv2d, *RESIDUAL, *RESIDUAL]
    strided = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [(m.in_channels, m.out_channels, m.kernel_size) for m in strided] == [(3, D, (4, 4)), (D, D, (4, 4))]
    first = 4 * 4 * 3 * D + D
    second = 4 * 4 * D * D + D
    assert parameters(encoder) == first + 2 * D + second + 2 * residual_parameters(D) == 2_375_680


def test_decoder_layers():
    decoder = Decoder(D)
    up = TransposedConv2d
    assert kinds(decoder) == [*RESIDUAL, *RESIDUAL, nn.ReLU, up, *CONV_BN_RELU, up, nn.Tanh]
    first = 4 * 4 * D * D + D
    last = 4 * 4 * D * 3 + 3
    assert parameters(decoder) == 2 * residual_parameters(D) + first + 2 * D + last == 2_375_427


def test_transposed_convolution_is_pytorchs():
    ours = TransposedConv2d(4, 3).double()
    theirs = nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 4, 5, 6, dtype=torch.double, requires_grad=True)
    mine, reference = ours(x), theirs(x)
    torch.testing.assert_close(mine, reference)
    v = torch.randn_like(mine)
    gradients = [torch.autograd.grad(y, [x, *m.parameters()], v) for y, m in ((mine, ours), (reference, theirs))]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_residual_block_adds_its_input():
    block = ResidualBlock(4).eval()
    x = torch.randn(2, 4, 5, 5)
    convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size, c.padding) for c in convolutions] == [((3, 3), (1, 1)), ((1, 1), (0, 0))]
    before = x.clone()
    torch.testing.assert_close(block(x) - x, block.layers(x))
    assert torch.equal(x, before)
    nn.init.zeros_(convolutions[-1].weight)
    nn.init.zeros_(convolutions[-1].bias)
    torch.testing.assert_close(block(x), x)


@pytest.mark.parametrize("network", [Encoder(16), Decoder(16)])
def test_xavier_uniform_weights_and_zero_biases(network):
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            area = math.prod(module.kernel_size)
            bound = math.sqrt(6 / (area * (module.in_channels + module.out_channels)))
            largest = module.weight.abs().max().item()
            assert 0.9 * bound < largest <= bound
            assert abs(module.weight.std().item() / (bound / math.sqrt(3)) - 1) < 0.1
            assert not module.bias.any()


@pytest.mark.parametrize(("downsampling", "side"), [(2, 16), (4, 8), (8, 4), (16, 2)])
def test_downsampling(downsampling, side):
    encoder, decoder = Encoder(4, downsampling), Decoder(4, downsampling)
    z = encoder(torch.randn(2, 3, 32, 32))
    assert z.shape == (2, 4, side, side)
    assert decoder(z).shape == (2, 3, 32, 32)
    halvings = int(math.log2(downsampling))
    assert sum(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in encoder.modules()) == halvings
    assert sum(isinstance(m, nn.ConvTranspose2d) for m in decoder.modules()) == halvings


def test_output_lies_in_the_range_of_images():
    x_hat = Decoder(4).eval()(1e3 * torch.randn(2, 4, 3, 3))
    assert x_hat.min() >= -1
    assert x_hat.max() <= 1
    assert x_hat.abs().max() > 0.99


@pytest.mark.parametrize("downsampling", [-4, 0, 1, 3, 12])
@pytest.mark.parametrize("network", [Encoder, Decoder])
def test_only_powers_of_two(network, downsampling):
    with pytest.raises(ConfigError, match=f"downsampling is {downsampling}; it must be a power of two"):
        network(4, downsampling)


def photo_networks(dim=192):
    torch.manual_seed(0)
    return build_network("photo", dim, 8, {"widths": [6, 5], "decoder_width": 4})


def test_the_registry_builds_both_sides():
    encoder, decoder = build_network("published", 6, 4)
    assert isinstance(encoder, Encoder)
    assert isinstance(decoder, Decoder)
    encoder, decoder = photo_networks(7)
    z = encoder(torch.zeros(2, 3, 24, 16))
    assert z.shape == (2, 7, 3, 2)
    assert decoder(z).shape == (2, 3, 24, 16)


@torch.no_grad()
def test_the_photo_network_begins_as_a_cosine_transform():
    """z against scipy's DCT of YCbCr, four units for a half of the range; and all 192 functions give the image back."""
    encoder, decoder = photo_networks()
    x = torch.rand(1, 3, 8, 16) * 2 - 1
    z, pixels = encoder(x), x[0].double().numpy()
    ycc = np.tensordot(np.array(photo.YCBCR), pixels / 2, 1)
    blocks = [dctn(ycc[:, :, at : at + 8], axes=(1, 2), norm="ortho") for at in (0, 8)]
    for at, block in enumerate(blocks):
        weighed = block * np.array([3.5, 2.1, 2.1])[:, None, None] * 4
        np.testing.assert_allclose(np.sort(z[0, :, 0, at].numpy()), np.sort(weighed.ravel()), rtol=1e-4, atol=1e-5)
    assert z[0, 0, 0, 0].item() == pytest.approx(blocks[0][0, 0, 0] * 14, rel=1e-4), "the mean of luma comes first"
    torch.testing.assert_close(decoder(z), x, rtol=0, atol=1e-3)


@torch.no_grad()
def test_photo_images_are_cut_to_their_range_in_evaluation_alone():
    decoder = photo_networks(3)[1]
    z = torch.full((1, 3, 1, 1), 500.0)
    assert decoder(z).abs().max() > 1
    assert decoder.eval()(z).abs().max() == 1


@pytest.mark.parametrize("inverse", [False, True])
def test_gdn_is_its_formula(inverse):
    torch.manual_seed(0)
    gdn = photo.GDN(3, inverse)
    nn.init.normal_(gdn.beta)
    nn.init.normal_(gdn.gamma)
    x = torch.randn(2, 3, 4, 5)
    y, beta, gamma = gdn(x), gdn.beta.abs(), gdn.gamma.abs()
    for i in range(3):
        power = beta[i] + 1e-3 + sum(gamma[i, j] * x[:, j] ** 2 for j in range(3))
        torch.testing.assert_close(y[:, i], x[:, i] * power.sqrt() ** (1 if inverse else -1))


@pytest.mark.parametrize("settled", [0.25, 1.0])
def test_normalization_goes_over_to_its_running_averages(settled):
    """Between what PyTorch's does with the batch's statistics and with its own, and its averages move on."""
    torch.manual_seed(0)
    norm, x = BatchNorm2d(3), 2 * torch.randn(4, 3, 5, 5) + 1
    norm.running_mean.copy_(torch.tensor([0.5, 0.0, 2.0]))
    norm.running_var.copy_(torch.tensor([1.0, 9.0, 4.0]))
    nn.init.uniform_(norm.weight)
    nn.init.uniform_(norm.bias)
    mean = (1 - settled) * x.mean((0, 2, 3)) + settled * norm.running_mean
    variance = (1 - settled) * x.var((0, 2, 3), correction=0) + settled * norm.running_var
    expected = F.batch_norm(x, mean, variance, norm.weight, norm.bias)
    plain = nn.BatchNorm2d(3)
    plain.load_state_dict(norm.state_dict())
    plain.train()(x)
    norm.settled = settled
    torch.testing.assert_close(norm.train()(x), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
