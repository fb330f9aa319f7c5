"""Data sets to tokens on disk and back: parquet shards, made by many workers and resumed after a kill.

model, images ──tokenize──► DIR/tokens.json, DIR/train-00000-of-00025.parquet, ... ──load_tokens──► TokenSet

schema.py     what a row holds, and the manifest that says what the shards are tokens of
shards.py     one shard, whole or not there
run.py        `tokenize`: which shards are still to be made, and by which engine
local.py      worker processes of this machine
cluster.py    Ray Data, the only file that imports ray
read.py       `load_tokens`
"""

from hybridvq.bulk.read import TokenSet, load_tokens
from hybridvq.bulk.run import Summary, tokenize
from hybridvq.bulk.schema import MANIFEST, Manifest

__all__ = ["MANIFEST", "Manifest", "Summary", "TokenSet", "load_tokens", "tokenize"]
