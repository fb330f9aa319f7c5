import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from hybridvq import ConfigError, GaussianQuantizer, IdentityQuantizer, build_quantizer
from hybridvq.quantizers import QUANTIZERS


def test_identity_passes_everything():
    z = torch.randn(2, 3, 4, 4)
    out = IdentityQuantizer(3)(z)
    assert torch.equal(out.z_hat, z)
    assert out.losses == {}
    assert out.tokens.float_bits() == 32 * 3


def test_gaussian_loss_is_the_divergence_of_torch_distributions():
    torch.manual_seed(0)
    quantizer, z = GaussianQuantizer(3, kl_weight=0.5), torch.randn(2, 3, 4, 4)
    mean, log_variance = quantizer.moments(z).chunk(2, 1)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).mean()
    assert quantizer(z).losses["kl"].item() == pytest.approx(0.5 * expected.item(), rel=1e-5)


def test_gaussian_samples_in_training_and_takes_the_mean_in_evaluation():
    torch.manual_seed(0)
    quantizer = GaussianQuantizer(2)
    with torch.no_grad():
        quantizer.moments.weight.zero_()
        quantizer.moments.bias.copy_(torch.tensor([5.0, 5.0, math.log(4.0), math.log(4.0)]))
    z = torch.zeros(4, 2, 64, 64)
    first, second = quantizer(z).z_hat, quantizer(z).z_hat
    assert not torch.equal(first, second)
    assert first.mean().item() == pytest.approx(5.0, abs=0.05)
    assert first.std().item() == pytest.approx(2.0, abs=0.05)
    assert (quantizer.eval()(z).z_hat == 5.0).all()


def test_the_noise_of_a_step_does_not_depend_on_what_ran_before():
    torch.manual_seed(0)
    quantizer, z = GaussianQuantizer(2), torch.randn(1, 2, 4, 4)
    state = {k: v.clone() for k, v in quantizer.state_dict().items()}
    expected = [quantizer(z).z_hat for _ in range(2)][1]
    quantizer.load_state_dict(state)
    quantizer(z)
    torch.rand(7)
    assert torch.equal(quantizer(z).z_hat, expected)


def test_every_quantizer_decodes_from_tokens_alone():
    for name in QUANTIZERS:
        quantizer = build_quantizer(4, name, {"frequent": 3} if name == "frequency" else None)
        z = torch.randn(8, 4, 16, 16)
        quantizer.train()(z)
        out = quantizer.eval()(z)
        torch.testing.assert_close(quantizer.dequantize(out.tokens), out.z_hat, msg=name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vectr", {}, "no quantizer named 'vectr'"),
        (
            "vector",
            {"codebok_size": 4},
            r"'codebok_size' \(did you mean codebook_size\?\); it takes codebook_size",
        ),
        ("frequency", {}, "needs the option 'frequent'"),
        ("identity", {"beta": 1}, "no option 'beta'; it takes code_dim"),
        ("gaussian", {"kl_weight": -1}, "kl_weight is -1"),
        ("gaussian", {"kl_weight": math.nan}, "kl_weight is nan"),
        ("identity", {"code_dim": 0}, "code_dim is 0"),
    ],
)
def test_building_names_what_is_wrong(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build_quantizer(4, name, options)
