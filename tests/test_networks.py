"""The networks against the published description, counted by hand."""

import math

import pytest
import torch
from torch import nn

from hybridvq import ConfigError
from hybridvq.networks import BatchNorm2d, Decoder, Encoder, ResidualBlock, TransposedConv2d

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
