"""A small result folder as `hybridvq compare` writes it, with numbers that are easy to check by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Run = dict[str, Any]


def make_run(recipe: str, group: str, seed: int = 0, **changes: Any) -> Run:
    steps, test_steps = list(range(10, 101, 10)), [50, 100]
    run = {
        "recipe": recipe,
        "title": recipe.replace("-", " ").capitalize(),
        "group": group,
        "description": f"What {recipe} is.",
        "seed": seed,
        "steps": 100,
        "precision": "32",
        "params": 400_000,
        "test_mse": 0.04,
        "test_psnr_db": 20.0,
        "test_ssim": 0.7,
        "test_quantization_mse": 0.01,
        "code_entropy_bits": 2.5,
        "codes_used": 6,
        "codebook_size": 8,
        "perplexity": 5.66,
        "bits_per_position": 3.0,
        "rate_bpp": 3.0 / 16,
        "entropy_rate_bpp": 2.5 / 16,
        "images_per_second": 900.0,
        "train_seconds": 60.0,
        "max_loss_spike": 1.2,
        "gains": None,
        "curve": {
            "step": steps,
            "train_mse": [1.0 / step for step in steps],
            "train_quantization": [0.5 / step for step in steps],
            "test_step": test_steps,
            "test_mse": [0.05, 0.04],
            "test_quantization": [0.02, 0.01],
            "test_codes_used": [4, 6],
        },
        "usage": [5, 0, 3, 1, 0, 9, 2, 4],
        "images": f"runs/{recipe}-seed{seed}/reconstructions.npy",
    }
    return {**run, **changes}


def make_result(runs: list[Run]) -> dict[str, Any]:
    return {
        "schema": 1,
        "created": "2026-11-23T19:00:00Z",
        "command": "hybridvq compare --steps 100",
        "data": {
            "name": "photos",
            "fingerprint": "0123456789abcdef",
            "size": 8,
            "train_images": 1200,
            "test_images": 45,
        },
        "setting": {"steps": 100, "batch_size": 128},
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "hardware": {"device": "cpu", "threads": 2},
        "skipped": [],
        "runs": runs,
        "originals": "originals.npy",
    }


@pytest.fixture
def run() -> Callable[..., Run]:
    return make_run


@pytest.fixture
def result_of() -> Callable[[list[Run]], dict[str, Any]]:
    return make_result


@pytest.fixture
def four_runs() -> list[Run]:
    """VQ-VAE and projected, published and healthy; the coefficient costs 32 bits, rounded to 6 it costs 6."""
    rounded = [
        {"bits": bits, "test_mse": mse, "bits_per_position": 3.0 + bits}
        for bits, mse in ((8, 0.0101), (6, 0.0104), (4, 0.02))
    ]
    gains = {"mean": 1.0, "std": 0.02, "min": 0.3, "max": 35.0, "rounded": rounded}
    wide = {"bits_per_position": 35.0, "rate_bpp": 35.0 / 16}
    return [
        make_run("vector-published", "published", test_mse=0.04, codes_used=2),
        make_run("projected-published", "published", test_mse=0.02, gains=gains, **wide),
        make_run("vector-healthy", "healthy", test_mse=0.025, codes_used=8),
        make_run("projected-healthy", "healthy", test_mse=0.01, gains=gains, **wide),
    ]


@pytest.fixture
def write_folder(tmp_path: Path) -> Callable[[list[Run]], Path]:
    """Write result.json, the originals and one array of reconstructions per run."""

    def write(runs: list[Run]) -> Path:
        rng = np.random.default_rng(0)
        originals = rng.integers(40, 200, (9, 8, 8, 3), dtype=np.uint8)
        np.save(tmp_path / "originals.npy", originals)
        for one in runs:
            if one["images"]:
                path = tmp_path / one["images"]
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, originals + rng.integers(0, 20, originals.shape, dtype=np.uint8))
        (tmp_path / "result.json").write_text(json.dumps(make_result(runs)), encoding="utf-8")
        return tmp_path

    return write
