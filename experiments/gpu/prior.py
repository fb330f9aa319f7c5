"""A large masked prior over the tokens of a tokenizer, trained on a GPU for as long as the clock allows.

    python -m experiments.gpu.prior pack TOKENS --tokenizer TOKENIZER --out tokens.npz      # here
    python -m experiments.gpu.prior train tokens.npz --minutes 8 --out OUT                  # there
    python -m experiments.gpu.prior join OUT --tokenizer TOKENIZER --out PRIOR              # here again

TOKENS holds the folders train, test and, if there is one, mirrored, as `hybridvq tokenize` writes each; a run of
`hybridvq train-prior` keeps such a folder. `train` needs torch, numpy, safetensors and huggingface-hub alone. It prints
the device, images per second and held-out bits, and leaves an average of the weights in half precision, in parts of
15 MiB; `join`ed, they are a prior, and where a next run goes on with --start. With --minutes 0.1 and small options it
runs on a CPU.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from hybridvq.documents import parse_json, read_json, to_json
from hybridvq.priors import Prior, bits_per_position, build_prior, decay_groups, load_prior, save_with_tokenizer
from hybridvq.quantizers import Tokens, TokenSpace
from hybridvq.saved import model_folder
from hybridvq.tokenizer import load_tokenizer, weight_hash

PART = 15 * 2**20  # bytes of a file that comes back
OPTIONS = {"width": 512, "layers": 8, "heads": 8, "dropout": 0.1}
RISE, FALL, AVERAGE = 0.03, 0.5, 0.9995
EVAL_BATCH = 256


def pack(tokens: Path, tokenizer: str, out: Path) -> None:
    """Write all tokens, labels and what they stand for into one file."""
    from hybridvq.bulk import load_tokens
    from hybridvq.training.tokens import TokenArrays

    space, arrays = load_tokenizer(tokenizer).quantizer.space().codes_alone, {}
    for part in ("train", "test", "mirrored"):
        if part == "mirrored" and not (tokens / part).is_dir():
            continue
        found = load_tokens(tokens / part)
        found.check(tokenizer)
        own = TokenArrays(found, found.classes is not None).arrays
        arrays |= {f"{part}.{name}": values for name, values in own.items()}
    about = {"codebook_size": space.codebook_size, "stages": space.stages, "gain": space.gain}
    about |= {"classes": list(found.classes or ()), "tokenizer": weight_hash(model_folder(tokenizer))}
    if space.level_values is not None:
        arrays["level_values"] = space.level_values.numpy()
    assert space.vectors is not None
    np.savez_compressed(out, about=to_json(about).decode(), vectors=space.vectors.numpy(), **arrays)


def unpack(path: Path) -> tuple[dict[str, Any], TokenSpace, dict[str, dict[str, np.ndarray]]]:
    """What `pack` wrote: about it, the space, and the arrays of each part."""
    content = np.load(path)
    about = parse_json(str(content["about"]))
    levels = torch.from_numpy(content["level_values"]) if "level_values" in content else None
    vectors = torch.from_numpy(content["vectors"])
    space = TokenSpace(about["codebook_size"], about["stages"], about["gain"], levels, vectors)
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name in content.files:
        part, _, key = name.partition(".")
        if key:
            parts.setdefault(part, {})[key] = content[name]
    return about, space, parts


def on_device(part: dict[str, np.ndarray], device: torch.device) -> tuple[Tokens, Tensor | None]:
    """Tokens and labels, all of them."""
    made = {name: torch.from_numpy(values).to(device) for name, values in part.items()}
    made = {name: values if values.is_floating_point() else values.long() for name, values in made.items()}
    return Tokens(codes=made["codes"], gains=made.get("gains")), made.get("label")


def train(
    path: Path, out: Path, minutes: float, batch: int, rate: float, options: dict[str, Any], start: str | None
) -> None:
    """Train until the clock says so, by a learning rate that follows it."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    about, space, parts = unpack(path)
    tokens, labels = on_device(parts["train"], device)
    if "mirrored" in parts:
        more, more_labels = on_device(parts["mirrored"], device)
        tokens = Tokens(**{name: torch.cat([part, more.parts[name]]) for name, part in tokens.parts.items()})
        labels = None if labels is None or more_labels is None else torch.cat([labels, more_labels])
    assert tokens.codes is not None
    grid = (tokens.codes.shape[2], tokens.codes.shape[3])
    classes = len(about["classes"]) or None
    prior = load_prior(start) if start else build_prior("masked", space, grid, classes, OPTIONS | options)
    if tokens.gains is not None and not start:
        prior.fit_scale(tokens.gains.cpu())
    prior = prior.to(device).train()
    average = {name: value.detach().clone() for name, value in prior.state_dict().items()}
    optimizer = torch.optim.AdamW(decay_groups(prior, 0.03), lr=rate, betas=(0.9, 0.95), fused=True)
    weights = sum(p.numel() for p in prior.parameters()) / 1e6
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(f"{name}, torch {torch.__version__}: {weights:.1f} million weights, {len(tokens.codes)} images", flush=True)
    began, step, said = time.perf_counter(), 0, 0.0
    while (share := (time.perf_counter() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (share + 1e-3) / RISE, (1 - share) / FALL)
        which = torch.randint(len(tokens.codes), (batch,), device=device)
        chosen = Tokens(**{key: part[which] for key, part in tokens.parts.items()})
        with torch.autocast(device.type, torch.bfloat16):
            score = prior(chosen, None if labels is None else labels[which])
        loss = -score.code.sum(1).mean() - (0 if score.gain is None else score.gain.sum(1).mean())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimizer.step()
        step += 1
        for key, value in prior.state_dict().items():
            average[key].lerp_(value, max(1 - AVERAGE, 9 / (9 + step)))
        if share - said >= 0.05:
            said = share
            seen = step * batch
            speed = seen / (60 * minutes * share)
            print(f"{share:.0%}: {loss.item() / math.log(2):.3f} bits, {speed:.0f} images/s", flush=True)
    prior.load_state_dict(average)
    report(prior.eval(), parts["test"], device)
    leave(prior, out, about)


def report(prior: Prior, part: dict[str, np.ndarray], device: torch.device) -> None:
    """Print the bits of held-out tokens."""
    tokens, labels = on_device(part, device)
    ends = range(0, len(part["codes"]), EVAL_BATCH)
    rows = [slice(i, i + EVAL_BATCH) for i in ends]
    given = [Tokens(**{key: x[at] for key, x in tokens.parts.items()}) for at in rows]
    batches = zip(given, [None if labels is None else labels[at] for at in rows], strict=True)
    print(f"{bits_per_position(prior, batches).total:.3f} held-out bits per position", flush=True)


def leave(prior: Prior, out: Path, about: dict[str, Any]) -> None:
    """Write the weights in half precision in parts, and what they are of."""
    out.mkdir(parents=True, exist_ok=True)
    kept = {name: value.detach().cpu().contiguous() for name, value in prior.state_dict().items()}
    kept |= {name: kept[name].half() for name, parameter in prior.named_parameters() if parameter.ndim > 1}
    content = save(kept)
    for old in out.glob("weights-*"):
        old.unlink()
    for i in range(0, len(content), PART):
        (out / f"weights-{i // PART:02d}").write_bytes(content[i : i + PART])
    space = {"grid": list(prior.shape), "options": prior.options, "codebook_size": prior.codebook_size}
    (out / "about.json").write_bytes(to_json(about | space))


def join(folder: Path, tokenizer: str, out: Path) -> None:
    """Make of the parts a prior that `hybridvq sample` takes."""
    about, source = read_json(folder / "about.json"), model_folder(tokenizer)
    if about["tokenizer"] != weight_hash(source):
        raise SystemExit(f"{folder} models the tokens of another tokenizer than {tokenizer}")
    space = load_tokenizer(source).quantizer.space().codes_alone
    classes = tuple(about["classes"]) or None
    prior = build_prior("masked", space, tuple(about["grid"]), classes and len(classes), about["options"])
    content = b"".join(path.read_bytes() for path in sorted(folder.glob("weights-*")))
    prior.load_state_dict({name: value.float() for name, value in load(content).items()})
    save_with_tokenizer(prior, out, source, classes)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("pack", "train", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tokenizer", help="of pack and join: a run or a model folder")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--options", type=parse_json, default={}, help="of the prior, as JSON")
    parser.add_argument("--start", help="a prior to go on from")
    given = parser.parse_args(words)
    if given.what == "train":
        train(given.source, given.out, given.minutes, given.batch, given.rate, given.options, given.start)
    else:
        {"pack": pack, "join": join}[given.what](given.source, given.tokenizer, given.out)


if __name__ == "__main__":
    main()
