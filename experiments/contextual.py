"""What the contextual coder of files spends on the tokens of the models of a comparison, beside their entropy.

    python -m experiments.contextual runs/rate-distortion --data PATH_OR_HUB_ID

For each run of one seed, tables are fitted to tokens of training images, as `hybridvq fit-codec` fits them, and the
bits that they spend on tokens of test images are counted. Written to contextual.json beside each model; what is there
is not measured again. Models whose tokens files cannot hold are left out, and so are codebooks so large that fitting
them would take hours.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hybridvq.codec.coder import CONTEXTUAL, STATIC, TokenCoder
from hybridvq.codec.fit import STEPS, check_codable, fit_tables
from hybridvq.codec.tables import Tables
from hybridvq.commands.fit_codec import batches_of_tokens, bits_per_position
from hybridvq.data import Images, open_images
from hybridvq.documents import to_json
from hybridvq.errors import HybridVQError
from hybridvq.tokenizer import Tokenizer, load_tokenizer
from hybridvq.writing import write_whole

FILE = "contextual.json"
LARGEST_CODEBOOK = 16384
TRAIN_IMAGES, TEST_IMAGES = 8192, 1024


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", type=Path, help="folder that `hybridvq compare` wrote")
    parser.add_argument("--data", required=True, help="that of the comparison")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0, help="of the runs to measure")
    parser.add_argument("--steps", type=int, default=STEPS, help="of gradient descent on the tables")
    given = parser.parse_args(words)
    train, test = (
        open_images(given.data, split, size=given.size, limit=limit)
        for split, limit in (("train", TRAIN_IMAGES), ("test", TEST_IMAGES))
    )
    for run in sorted(given.comparison.glob(f"runs/*-seed{given.seed}")):
        if (run / "run.json").is_file() and not (run / FILE).is_file():
            found = measure(load_tokenizer(run), train, test, given.steps)
            write_whole(run / FILE, to_json(found))
            print(run.name, found, flush=True)


def measure(tokenizer: Tokenizer, train: Images, test: Images, steps: int) -> dict[str, Any]:
    """Bits per position of tokens of `test` with tables fitted to `train`, or why they were not counted."""
    try:
        check_codable(tokenizer.quantizer)
        if tokenizer.quantizer.space().vectors is None:
            raise HybridVQError("its codes have no vectors that a context could be made of")
        if (tokenizer.quantizer.codebook_size or 0) > LARGEST_CODEBOOK:
            raise HybridVQError(f"it has more than {LARGEST_CODEBOOK:,} codes")
    except HybridVQError as error:
        return {"left_out": str(error)}
    began = time.perf_counter()
    tables = fit_tables(batches_of_tokens(tokenizer, train), tokenizer, "", steps=steps)
    seconds = time.perf_counter() - began
    held_out = list(batches_of_tokens(tokenizer, test))
    bits = {
        f"{name}_bits_per_position": bits_per_position(TokenCoder(tables, mode), held_out)
        for name, mode in (("static", STATIC), ("contextual", CONTEXTUAL))
    }
    about = {"train_images": len(train), "test_images": len(test), "fit_seconds": seconds}
    return bits | about | {"table_bytes": size_of(tables)}


def size_of(tables: Tables) -> int:
    """Bytes of the file that holds them."""
    with TemporaryDirectory() as folder:
        tables.save(Path(folder))
        return sum(path.stat().st_size for path in Path(folder).iterdir())


if __name__ == "__main__":
    main()
