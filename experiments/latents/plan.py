"""The rows of the table, and the models behind them: the same network, photographs, steps and schedule."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.latents import side_channel  # noqa: F401  registers the quantizer
from experiments.latents.context import fit_context, save_context
from hybridvq import load_recipe, load_tokenizer, train
from hybridvq.codec import fit_tables, load_tables
from hybridvq.commands.fit_codec import batches_of_tokens, save_copy
from hybridvq.data import EvalBatches, Images
from hybridvq.errors import CodecError
from hybridvq.settings import Recipe
from hybridvq.tokenizer import weight_hash

CONTEXT = "context.safetensors"  # in the folder of a run
CODED = "coded"  # a copy of the model with its tables: a run that is resumed writes its model anew
ASIDE = 1 / 3  # of the steps, before codes or numbers are used

# A quantizer, and what it takes beside what `photos` says of every one that counts its bits.
UNIT: dict[str, Any] = {"normalize": True, "beta": 0.0}
VECTOR = UNIT | {"learn": "ema"}  # of three ways, the least error on the test photographs after 300 steps
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "vq-512": ("vector", VECTOR | {"codebook_size": 512}),
    "vq-4096": ("vector", VECTOR | {"codebook_size": 4096}),
    "gain-shape": (
        "gain-shape",
        UNIT | {"codebook_size": 512, "levels": 8, "stages": 4, "code_dim": 20, "rate_weight": 0.04},
    ),
    "scalar": ("hybrid", {"groups": 0}),
    "side-channel": ("side-channel", {"numbers": 32, "width": 96}),
    "hybrid": ("hybrid", {"groups": 4, "codebook_size": 256, "code_dim": 8, "width": 96}),
}
COUNTING = ("hybrid", "side-channel")  # quantizers


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        name, title: in files, and on the page.
        network: the key of NETWORKS that it measures.
        context: whether coefficients are counted given decoded neighbors.
    """

    name: str
    title: str
    network: str
    context: bool = False

    @property
    def counts_bits(self) -> bool:
        """Whether it has a ladder of steps, and ideal code lengths; otherwise files, and a ladder of lambda."""
        return NETWORKS[self.network][0] in COUNTING


ROWS = (
    Row("vq-512", "VQ-VAE, K=512", "vq-512"),
    Row("vq-4096", "VQ-VAE, K=4096", "vq-4096"),
    Row("gain-shape", "gain-shape, 4 stages of 512 x 8", "gain-shape"),
    Row("scalar", "scalar", "scalar"),
    Row("scalar-context", "scalar, neighbors", "scalar", True),
    Row("side-channel", "scalar, side channel", "side-channel"),
    Row("side-channel-context", "scalar, side channel and neighbors", "side-channel", True),
    Row("hybrid", "hybrid", "hybrid"),
    Row("hybrid-context", "hybrid, neighbors", "hybrid", True),
)


def recipe_of(network: str, steps: int, batch_size: int | None = None) -> Recipe:
    """The recipe `photos` with another quantizer, and its loss."""
    base, (quantizer, options) = load_recipe("photos"), NETWORKS[network]
    counting = quantizer in COUNTING
    if counting:
        options = options | {"step_range": base.model.options["step_range"], "aside_steps": round(ASIDE * steps)}
    training = replace(
        base.training,
        steps=steps,
        batch_size=batch_size or base.training.batch_size,
        loss=base.training.loss if counting else "psnr",
    )
    model = replace(base.model, quantizer=quantizer, options=options)
    return Recipe(title=network, name=network, group="latents", model=model, training=training)


def run_folder(out: Path, network: str, seed: int) -> Path:
    return out / f"{network}-{seed}"


def runs_of(rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Every model to train, seed by seed, so that a first table is there early."""
    return ((network, seed) for seed in seeds for network in dict.fromkeys(row.network for row in rows))


def prepare(
    rows: Sequence[Row],
    seeds: Sequence[int],
    steps: int,
    images: Images,
    tests: EvalBatches,
    out: Path,
    device: str = "auto",
    batch_size: int | None = None,
    fit_steps: int | None = None,
) -> None:
    """Train what is not yet trained, and fit what is not yet fitted, each model in a folder of its own.

    Raises: as `hybridvq.train`, ModelError where a folder holds a run of other settings.
    """
    limit = {} if fit_steps is None else {"steps": fit_steps}
    for network, seed in runs_of(rows, seeds):
        folder, own = run_folder(out, network, seed), [row for row in rows if row.network == network]
        print(f"{network}, seed {seed}", flush=True)
        train(recipe_of(network, steps, batch_size), images, tests, folder, seed, resume=True, device=device)
        tokenizer, digest = load_tokenizer(folder, device=device), weight_hash(folder / "model")
        if not own[0].counts_bits and not has_tables(folder / CODED, digest):
            tables = fit_tables(batches_of_tokens(tokenizer, images), tokenizer, digest, seed=seed, **limit)
            shutil.rmtree(folder / CODED, ignore_errors=True)
            save_copy(tables, folder / "model", folder / CODED)
        if any(row.context for row in own) and not (folder / CONTEXT).exists():
            save_context(fit_context(tokenizer, images, seed, **limit), folder / CONTEXT)


def has_tables(folder: Path, digest: str) -> bool:
    try:
        load_tables(folder, digest)
    except CodecError:
        return False
    return True
