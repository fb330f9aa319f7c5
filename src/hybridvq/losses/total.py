"""The weighted sum of the terms of a loss."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hybridvq.distributed import average
from hybridvq.errors import ConfigError
from hybridvq.quantizers import Quantizer, Rate

RECONSTRUCTION = "reconstruction"  # the name of a term that is alone


class TotalLoss(nn.Module):
    """Terms and their weights, and what trains those that learn themselves.

    Args:
        terms: modules by name, see `hybridvq.losses`.
        weights: theirs; 1 for those that are not named.
        title: what messages call it.
    """

    def __init__(
        self, terms: Mapping[str, nn.Module], weights: Mapping[str, float] | None = None, title: str = ""
    ) -> None:
        super().__init__()
        self.title = title or " + ".join(terms)
        self.terms = nn.ModuleDict(dict(terms))
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in terms}
        self.requires_grad_(False)
        for term in self.terms.values():
            term.train(hasattr(term, "opponent_loss"))

    @property
    def reads_rate(self) -> bool:
        """Whether a term needs the bits of the tokens."""
        return any(getattr(term, "reads_rate", False) for term in self.terms.values())

    @property
    def opponents(self) -> list[Any]:
        """The terms that learn."""
        return [term for term in self.terms.values() if hasattr(term, "opponent_loss")]

    def check(self, quantizer: Quantizer) -> None:
        """Raise ConfigError unless the loss reads what the quantizer counts."""
        if quantizer.counts_bits != self.reads_rate:
            name, wanted = type(quantizer).__name__, "rate-distortion" if quantizer.counts_bits else "mse or psnr"
            counts = "counts" if quantizer.counts_bits else "does not count"
            raise ConfigError(f"training.loss is {self.title}, but {name} {counts} its bits; use {wanted}")

    def forward(self, x_hat: Tensor, x: Tensor, rate: Rate | None = None) -> dict[str, Tensor]:
        """The weighted terms by name, each one number; their sum is the loss.

        Raises:
            ConfigError: a term returns no tensor.
        """
        weighted = {}
        for name, term in self.terms.items():
            value = term(x_hat, x, rate) if getattr(term, "reads_rate", False) else term(x_hat, x)
            for part, number in (value if isinstance(value, dict) else {name: value}).items():
                if not isinstance(number, Tensor):
                    kind = type(number).__name__
                    raise ConfigError(f"the loss {type(term).__name__} returns {kind}; it must return a tensor")
                weighted[part] = self.weights[name] * number.float().mean()
        return weighted

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer | None:
        """Adam, as discriminators use it, for the terms that learn; None where none does."""
        parameters = [parameter for term in self.opponents for parameter in term.parameters()]
        return torch.optim.Adam(parameters, lr=learning_rate, betas=(0.5, 0.9)) if parameters else None

    def learn(self, x_hat: Tensor, x: Tensor, optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
        """One step of the terms that learn, on the batch of all processes."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            parameter.requires_grad_(True)
        losses = [term.opponent_loss(x_hat.detach(), x) for term in self.opponents]
        gradients = torch.autograd.grad(torch.stack(losses).sum(), parameters, materialize_grads=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = average(gradient)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        optimizer.step()
        optimizer.zero_grad()
        for parameter in parameters:
            parameter.requires_grad_(False)
