"""Codes for structure, coefficients for detail."""

import math
from collections.abc import Sequence
from typing import Literal, Self

import torch
from torch import Tensor

from hybridvq.errors import ConfigError, ShapeError
from hybridvq.quantizers.base import Quantizer, mean_square, straight_through
from hybridvq.quantizers.codebook import Codebook
from hybridvq.quantizers.gaussian import image_generators
from hybridvq.quantizers.logistic import LogisticMixture, logistic_bits
from hybridvq.quantizers.space import TokenSpace
from hybridvq.quantizers.structure import COARSER, Guess, Structure
from hybridvq.quantizers.tokens import Quantized, Rate, Tokens
from hybridvq.ranges import LARGEST_STEP, check_count, check_weight

COARSEST, FINEST = 4.0, 0.2  # the steps of quality 1 and 100


def step_of_quality(quality: float) -> float:
    """The step of a quality from 1 to 100: 4 * 20^(-(quality - 1) / 99), so 4 at 1, 0.91 at 50, 0.2 at 100.

    Raises:
        ConfigError: the quality is out of range.
    """
    if not 1 <= quality <= 100:
        raise ConfigError(f"quality is {quality}; it must lie between 1 and 100")
    return float(COARSEST * (FINEST / COARSEST) ** ((quality - 1) / 99))


class HybridQuantizer(Quantizer):
    r"""Codes that say what is there, and rounded coefficients that say how exactly.

        z (B,D,h,w) ──┬─► structure encoder ──► y (B,G d,h/4,w/4) ──► codes (B,G,h/4,w/4)
                      │       codes ──► structure decoder ──► mean m, log scale log s (B,D,h,w)
                      └─► r = round((z - m) / step) ──► z_hat = m + step r

    Rounding weighs bits b: with v = (z - m) / step, r is the nearest integer n or the next one towards 0, whichever has
    the smaller (v - r)^2 + `rate_weight` b(r).

    Tokens: codes, coefficients r, and the step; codes alone are read as m. The step is the one dial: without bound the
    tokens are codes on a coarse grid (VQ-VAE), towards 0 the latent is continuous. Without groups m is 0, and what is
    left is a scalar transform codec.

    Rate: -log2 of the codes' running shares, and -log2 [F((r + 1/2) step / s) - F((r - 1/2) step / s)] for each
    coefficient, F logistic. In training a step is drawn for each image, log2 uniform in `step_range`; the decoder reads
    z_hat and the bits are those of z plus uniform noise as wide as the step.

    The first `aside_steps` training steps go without codes: the coefficients round z itself and are counted by a
    mixture of logistics for each channel, while the structure learns aside, on z without a gradient to it. An untrained
    structure in the loss would silence channels for good. Without groups it stays so.

    Losses: commitment beta ||y - sg[e]||^2, a mean over elements. The rest is in `Rate`, for a loss of rate and
    distortion: squared errors count `distortion` / step^2 bits per pixel, images step^`balance`.
    Gradient: straight-through to z and to y; the noise of an image depends on the training step and its place in the
    batch of all processes alone.
    Shapes: z, z_hat (B, D, h, w) float32; codes (B, G, h/4, w/4) int64, sides rounded up; coefficients (B, D, h, w)
    int32; step (B,) float32.
    Sources: Balle, Laparra, Simoncelli 2017, arXiv:1611.01704 (noise for the rate); Minnen, Balle, Toderici 2018,
    arXiv:1809.02736 (mean and scale); arXiv:2402.18930 (one model for all steps).

    Args:
        dim: D.
        groups: G, code vectors at each coarse position; 0 for none.
        codebook_size: K, of each group.
        code_dim: d, the length of a code vector.
        width: channels of the structure networks.
        beta: weight of the commitment term.
        aside_steps: training steps before the codes are used.
        step_range: the smallest and the largest step that training draws.
        step: the step in evaluation, where none is given.
        distortion: bits per pixel that a squared error of 1 is worth at step 1, pixels being 0 to 255.
        balance: power of the step by which images count.
        rate_weight: square steps that a bit is worth where coefficients are rounded; 0 for the nearest.
        init, restart_every, decay: how the code vectors are kept, see `Codebook`; they are moving averages.

    Raises:
        ConfigError: an option has no such value, or a step is not positive.
        ShapeError: z.shape[1] != D, or there is not one step for each image.
    """

    per_position = False
    counts_bits = True
    takes_maps_only = True
    steps: Tensor  # () int64, training steps seen

    def __init__(
        self,
        dim: int,
        groups: int = 4,
        codebook_size: int = 256,
        code_dim: int = 8,
        width: int = 96,
        beta: float = 0.25,
        aside_steps: int = 5000,
        step_range: Sequence[float] = (0.3, 2.8),
        step: float = 1.0,
        distortion: float = 0.0067,
        balance: float = 0.6,
        rate_weight: float = 0.06,
        init: Literal["uniform", "kmeans"] = "uniform",
        restart_every: int = 50,
        decay: float = 0.99,
    ) -> None:
        super().__init__(dim)
        for name, count, least in (("groups", groups, 0), ("code_dim", code_dim, 1), ("width", width, 1)):
            check_count(name, count, least)
        check_count("aside_steps", aside_steps, 0, LARGEST_STEP)
        weights = {"beta": beta, "distortion": distortion, "balance": balance, "rate_weight": rate_weight}
        for name, weight in weights.items():
            check_weight(name, weight)
        if len(step_range) != 2 or not 0 < step_range[0] <= step_range[1] < math.inf:
            raise ConfigError(f"step_range is {list(step_range)}; give the smallest step and the largest, above 0")
        if not step > 0:
            raise ConfigError(f"step is {step}; it must be positive")
        self.beta, self.aside_steps, self.step_range, self.step = beta, aside_steps, tuple(step_range), step
        self.distortion, self.balance, self.rate_weight = distortion, balance, rate_weight
        self.prior = LogisticMixture(dim)
        self.structure: Structure | None = None
        if groups:
            self.codebook_size, self.stages = codebook_size, groups
            codebooks = [Codebook(codebook_size, code_dim, "ema", init, restart_every, decay) for _ in range(groups)]
            self.structure = Structure(dim, width, codebooks)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.coded = False  # `uses_codes` for a compiler, which cannot branch on a tensor
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "coded", module.uses_codes))

    @property
    def uses_codes(self) -> bool:
        """Whether tokens have codes: there are groups, and they have learned aside for long enough."""
        if torch.compiler.is_compiling():
            return self.coded
        return self.structure is not None and int(self.steps) >= self.aside_steps

    def train(self, mode: bool = True) -> Self:
        self.coded = self.uses_codes
        return super().train(mode)

    def forward(self, z: Tensor, step: float | Tensor | None = None, mask: Tensor | None = None) -> Quantized:
        """Quantize z (B, D, h, w), to one step or to one for each image (B,).

        The structure networks keep the precision around them in training; all else, and evaluation, is float32.
        There is no mask.
        """
        self.check_shape(z, mask)
        autocast = torch.is_autocast_enabled(z.device.type)
        return self.run(lambda z: self.quantize(z.float(), step, self.training and autocast), z)

    def quantize(self, z: Tensor, step: float | Tensor | None = None, mixed: bool = False) -> Quantized:
        drawn, noise = self.draw(z) if self.training else (self.step, torch.zeros((), device=z.device))
        steps, coded = self.steps_of(z, drawn if step is None else step), self.uses_codes
        guess = None
        if self.structure is not None and (coded or self.training):
            guess = self.structure(z if coded else z.detach(), mixed)
        mean = guess.mean if guess is not None and coded else torch.zeros((), device=z.device)
        with torch.no_grad():
            r = self.round((z - mean) / steps, steps, guess if coded else None)
            z_hat = add(mean, r, steps)
        rate = self.count(z + noise * steps if self.training else z_hat, steps, guess, coded)
        if self.training:
            self.steps += 1
        codes = guess.codes if guess is not None and coded else None
        tokens = Tokens(codes=codes, coefficients=r.int(), step=steps.flatten())
        losses = {} if guess is None else {"commitment": self.beta * guess.commitment}
        error = mean_square(z_hat, z.detach())
        return Quantized(straight_through(z, z_hat), tokens, losses, error, rate, self.codebook_size)

    def round(self, v: Tensor, steps: Tensor, guess: Guess | None) -> Tensor:
        """The coefficients of values v (B, D, h, w) in steps (B, 1, 1, 1), by error and bits."""
        nearest = v.round()
        if not self.rate_weight:
            return nearest
        nearer = nearest - nearest.sign()
        saved = self.bits_of(nearest, steps, guess) - self.bits_of(nearer, steps, guess)
        more = (v - nearer).square() - (v - nearest).square()
        return torch.where(more < self.rate_weight * saved, nearer, nearest)

    def bits_of(self, r: Tensor, steps: Tensor, guess: Guess | None) -> Tensor:
        """The bits of each coefficient r (B, D, h, w), given what the codes say of it, if anything."""
        zero = torch.zeros((), device=r.device)
        rest = add(zero, r, steps)
        return self.prior.bits(rest, steps) if guess is None else logistic_bits(rest, steps, zero, guess.log_scale)

    def count(self, value: Tensor, steps: Tensor, guess: Guess | None, coded: bool) -> Rate:
        """The bits of `value` (B, D, h, w) rounded to `steps` (B, 1, 1, 1)."""
        step = steps.flatten()
        if guess is not None and coded:
            bits = logistic_bits(value, steps, guess.mean, guess.log_scale).sum((1, 2, 3)) + guess.code_bits
            # Training on several devices wants a gradient for every parameter.
            aside_bits = torch.stack([0 * part.sum() for part in self.prior.parameters()]).sum().expand(len(step))
        else:
            bits, aside_bits = self.prior.bits(value, steps).sum((1, 2, 3)), torch.zeros_like(step)
            if guess is not None:
                rest = logistic_bits(value.detach(), steps, guess.mean, guess.log_scale)
                aside_bits = rest.sum((1, 2, 3)) + guess.code_bits
        return Rate(bits, aside_bits, self.distortion / step.square(), step**self.balance)

    def read(self, tokens: Tokens) -> Tensor:
        codes, coefficients, step = tokens.codes, tokens.coefficients, tokens.step
        if coefficients is None or step is None:
            return self.predict(tokens)[0]
        mean = torch.zeros((), device=coefficients.device) if codes is None else self.predict(tokens)[0]
        return add(mean, coefficients.to(mean.dtype), step[:, None, None, None])

    def space(self) -> TokenSpace:
        if self.structure is None or not self.uses_codes:
            return TokenSpace(0, self.stages, coefficients=self.dim, coarser=COARSER)
        vectors = torch.stack([self.structure.vectors(group) for group in range(self.stages)])
        size = self.codebook_size or 0
        return TokenSpace(size, self.stages, vectors=vectors, coefficients=self.dim, coarser=COARSER)

    def predict(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """The mean and the log scale (B, D, h, w) that codes stand for; h, w are those of the coefficients, if any.

        Raises:
            ConfigError: the tokens hold no codes, or this quantizer has none.
        """
        if tokens.codes is None or self.structure is None:
            raise ConfigError("codes are needed to say what to expect, and the tokens or the quantizer have none")
        mean, log_scale = self.structure.predict(self.structure.embed(tokens.codes))
        if tokens.coefficients is None:
            return mean, log_scale
        height, width = tokens.coefficients.shape[2:]
        return mean[..., :height, :width], log_scale[..., :height, :width]

    def draw_details(self, tokens: Tokens, temperature: float, generator: torch.Generator | None) -> Tokens:
        """Codes with coefficients drawn from the logistic distributions that they predict, in this quantizer's step.

        `temperature` multiplies the scales; at 0 all coefficients are 0. Uniform numbers come from a CPU generator.
        """
        _, log_scale = self.predict(Tokens(codes=tokens.codes))
        u = torch.rand(log_scale.shape, generator=generator).clamp(1e-6, 1 - 1e-6).to(log_scale.device)
        r = (temperature * log_scale.exp() * torch.logit(u) / self.step).round().int()
        step = torch.full((len(r),), float(self.step), device=r.device)
        return Tokens(codes=tokens.codes, coefficients=r, step=step)

    def draw(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The steps (B,) of a training step, and noise (B, D, h, w) from -1/2 to 1/2."""
        steps, noise = torch.empty(len(z), device=z.device), torch.empty(z.shape, device=z.device)
        low, high = (math.log2(step) for step in self.step_range)
        for row, generator in enumerate(image_generators(int(self.steps), z)):
            steps[row].uniform_(low, high, generator=generator)
            noise[row].uniform_(-0.5, 0.5, generator=generator)
        return steps.exp2(), noise

    @staticmethod
    def steps_of(z: Tensor, step: float | Tensor) -> Tensor:
        """One step for each image, (B, 1, 1, 1)."""
        steps = torch.as_tensor(step, dtype=torch.float32, device=z.device)
        if steps.ndim > 1 or (steps.ndim == 1 and len(steps) != len(z)):
            raise ShapeError(
                f"step has shape {tuple(steps.shape)}; give one number, or one for each of {len(z)} images"
            )
        if not torch.compiler.is_compiling() and not (steps > 0).all():
            raise ConfigError(f"step is {step}; it must be positive")
        return steps.expand(len(z))[:, None, None, None]


def add(mean: Tensor, r: Tensor, steps: Tensor) -> Tensor:
    """mean + r steps, and mean where r is 0, for the step may be without bound."""
    return mean + torch.where(r == 0, torch.zeros_like(r), r * steps)
