"""The adapters that experiments compare with keep the interface's promises."""

import pytest
import torch

from hybridvq.quantizers import QUANTIZERS, Tokens


@pytest.fixture(scope="module")
def rivals():
    known = dict(QUANTIZERS)
    from experiments import rivals

    yield rivals
    for name in QUANTIZERS.keys() - known.keys():
        del QUANTIZERS[name]


@pytest.mark.parametrize(
    ("name", "options", "codes", "stages"),
    [
        ("BinarySphericalQuantizer", {"codebook_size": 64}, 64, 1),
        ("ResidualVectorQuantizer", {"codebook_size": 32, "stages": 2, "code_dim": 8}, 32, 2),
    ],
)
def test_tokens_are_enough_and_gradients_reach_the_encoder(rivals, name, options, codes, stages):
    torch.manual_seed(0)
    quantizer = getattr(rivals, name)(16, **options)
    z = torch.randn(4, 16, 8, 8, requires_grad=True)
    out = quantizer.train()(z)
    (out.z_hat.square().sum() + sum(out.losses.values())).backward()
    assert z.grad.abs().sum() > 0
    out = quantizer.eval()(z.detach())
    assert (quantizer.codebook_size, quantizer.stages) == (codes, stages)
    assert out.tokens.codes.shape == (4, stages, 8, 8)
    assert 0 <= out.tokens.codes.min() <= out.tokens.codes.max() < codes
    again = quantizer.dequantize(Tokens(codes=out.tokens.codes.clone()))
    torch.testing.assert_close(again, out.z_hat, rtol=1e-4, atol=1e-4)
