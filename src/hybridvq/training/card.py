"""The model card that a run writes beside its weights."""

import json
import shlex
from dataclasses import asdict

from hybridvq.data import EvalBatches, Images, Stream
from hybridvq.evaluation import reconstruct
from hybridvq.metrics import psnr_db
from hybridvq.recipe import load_recipe, recipe_names
from hybridvq.settings import Recipe
from hybridvq.tokenizer import Tokenizer
from hybridvq.training.history import History

CARD = """---
library_name: hybridvq
tags: [image-tokenizer]
---
# {title}

{description} An image of H x W pixels becomes H/{f} x W/{f} positions.

```python
from hybridvq import load_tokenizer

tokenizer = load_tokenizer("FOLDER_OR_HUB_ID")
tokens = tokenizer.encode("photo.jpg")
```

## What it was trained on

| | |
|---|---|
| data | {data} |
| crops | {size}x{size} pixels |
| schedule | {steps:,} steps of {batch} images, Adam at {rate:g}, warm-up {warmup:g} and decay {decay:g} of the steps |
| loss | {loss} |
| seed | {seed} |
| parameters | {parameters:.2f} million |

## What it does

| held-out crops | {measured:,} |
|---|--:|
| MSE on [-1, 1] | {mse:.4f} |
| PSNR of that MSE | {psnr:.2f} dB |
| bits per pixel of the first crop, before entropy coding | {bpp:.3f} |
{codes}
## Limits

- It suits images like those above, at about the size of the crops. How well it does on others was not measured.
- It was trained with one seed, so a small difference from another model may be chance.
{warnings}
## License

None is stated. Before you share the weights, state one that the terms of the data allow.

## How to train it again

    {command}
"""


def model_card(
    recipe: Recipe,
    seed: int,
    images: Images | Stream,
    test_batches: EvalBatches,
    tokenizer: Tokenizer,
    history: History,
) -> str:
    """The card, as Markdown: data, schedule, seed, measurements, bits, limits and the command.

    Args:
        tokenizer: as trained; its bits are those of the first held-out image.
        history: its last measurement and its warnings are told.
    """
    settings, last, first = recipe.training, history.tests[-1], test_batches[0][:1]
    bits = reconstruct(tokenizer, first)[1]
    size = tokenizer.quantizer.codebook_size
    count = f"{len(images):,} images, " if isinstance(images, Images) else "a stream, "
    return CARD.format(
        title=recipe.title or recipe.name or "An image tokenizer",
        description=recipe.description,
        f=tokenizer.downsampling,
        data=f"{images.name}: {count}fingerprint {images.fingerprint}",
        size=images.size,
        steps=settings.steps,
        batch=settings.batch_size,
        rate=settings.learning_rate,
        warmup=settings.warmup,
        decay=settings.decay,
        loss=settings.loss if isinstance(settings.loss, str) else json.dumps(settings.loss),
        seed=seed,
        parameters=sum(weight.numel() for weight in tokenizer.parameters()) / 1e6,
        measured=test_batches.total,
        mse=last["test_mse"],
        psnr=psnr_db(last["test_mse"]),
        bpp=bits / (first.shape[2] * first.shape[3]),
        codes=f"| codes used | {last['codes_used']} of {size} |\n" if size else "",
        warnings="".join(f"- A warning of the run: {text}\n" for text in history.warnings),
        command=command(recipe, seed, images.size),
    )


def command(recipe: Recipe, seed: int, size: int) -> str:
    """The command line that trains the recipe again, DATA in place of the images."""
    words = [f"hybridvq train --recipe {recipe.name or 'RECIPE.yaml'} --data DATA --size {size} --seed {seed}"]
    if recipe.name in recipe_names():
        named = load_recipe(recipe.name)
        for part in ("model", "training"):
            given, usual = asdict(getattr(recipe, part)), asdict(getattr(named, part))
            changes = {key: value for key, value in given.items() if value != usual[key]}
            words += [f"--{part}.{key} {shlex.quote(as_word(value))}" for key, value in changes.items()]
    return " \\\n        ".join(words)


def as_word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
