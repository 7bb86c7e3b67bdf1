"""Losses of models on shards and texts, in nats per token and in bits per byte."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from gemstones.evaluation import sets
from gemstones.training.corpus import pieces
from gemstones.training.data import Tokens
from gemstones.training.export import export
from tests.commands import refused, run
from tests.unit.training.conftest import Train, make_job, make_run


def losses(*arguments: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(run("evaluate", *arguments, "--json")[0])
    return rows


@pytest.fixture(scope="module")
def trained(train: Train, tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """A run beside its shards, as a study has them."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(shards.parent, folder / "data")
    return train(folder, 20, data=folder / "data" / "manifest.json")


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    return export(trained, tmp_path_factory.mktemp("export"), shards)


def texts_of(corpus: str) -> list[str]:
    return [text for piece in pieces(corpus) for _, text in piece.documents()]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_checkpoint_loses_what_was_recorded_in_training(
    train: Train, tmp_path: Path, shards: Path, precision: str
) -> None:
    manifest = train(tmp_path, 20, make_job(make_run(precision=precision)))
    (row,) = losses(manifest, "--data", shards)
    assert row["loss"] == pytest.approx(json.loads(manifest.read_text())["validation_loss"], abs=1e-6)
    assert (row["tokens"], row["context_length"], row["split"]) == (256, 16, "validation")


def test_an_exported_folder_loses_the_same(trained: Path, exported: Path, shards: Path, corpus: str) -> None:
    for data in (shards, corpus):
        ours, theirs = losses(trained, exported, "--data", data)
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-6)
        assert theirs["bits_per_byte"] == pytest.approx(ours["bits_per_byte"], rel=1e-6)
        assert theirs["tokenizer_sha256"] == ours["tokenizer_sha256"]


def test_bytes_are_those_of_the_predicted_text(trained: Path, shards: Path) -> None:
    """Of the tokens from the second one on; what separates documents has no bytes."""
    (row,) = losses(trained, "--data", shards, "--tokens", 500, "--split", "train")
    assert row["tokens"] == 496  # 31 windows of 16
    tokenizer = Tokenizer.from_file(str(shards.parent / "tokenizer.json"))
    text = tokenizer.decode(Tokens(shards, "train").window(1, 496).tolist(), skip_special_tokens=True)
    assert row["bytes"] == len(text.encode())
    assert row["bits_per_byte"] == pytest.approx(row["loss"] * 496 / math.log(2) / row["bytes"])


def test_bytes_of_tokens_are_exact(build: Callable[..., Path], tmp_path: Path) -> None:
    text = "naïve 漢字 🙂 — “quoted”\n\n  indented\t<b>"
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(text * 40 + str(number))
    shards = build(tmp_path / "data", corpus=str(tmp_path / "*.txt"))
    lengths = sets.token_bytes(sets.read_tokenizer(shards.parent / "tokenizer.json"))
    assert lengths is not None
    total = sum(int(lengths[(t := Tokens(shards, split)).window(0, len(t))].sum()) for split in ("train", "validation"))
    assert total == sum(path.stat().st_size for path in tmp_path.glob("*.txt"))


def test_all_of_a_text_is_predicted_whatever_the_tokenizer(
    trained: Path, exported: Path, corpus: str, tmp_path: Path
) -> None:
    size = sum(len(text.encode()) for text in texts_of(corpus))
    by_bytes = tmp_path / "by_bytes"
    shutil.copytree(exported, by_bytes)
    write_byte_tokenizer(by_bytes / "tokenizer.json")
    config = json.loads((by_bytes / "config.json").read_text())
    (by_bytes / "config.json").write_text(json.dumps(config | {"eos_token_id": 256}))
    first, second = losses(trained, by_bytes, "--data", corpus)
    assert first["bytes"] == second["bytes"] == size
    assert second["tokens"] == size + 60  # a separator after each page
    assert first["tokens"] < second["tokens"]
    assert first["tokenizer_sha256"] != second["tokenizer_sha256"]


def write_byte_tokenizer(path: Path) -> None:
    """One token a byte, from the characters that stand for bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({name: i for i, name in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.save(str(path))


def test_a_model_without_knowledge_has_the_bits_of_its_tokens(exported: Path, corpus: str, tmp_path: Path) -> None:
    """With all weights 0 every token costs log 300 nats, so that bits per byte follow from the numbers of tokens and bytes."""
    shutil.copytree(exported, tmp_path / "flat")
    weights = {name: torch.zeros_like(weight) for name, weight in load_file(exported / "model.safetensors").items()}
    save_file(weights, tmp_path / "flat/model.safetensors")
    (row,) = losses(tmp_path / "flat", "--data", corpus)
    assert row["loss"] == pytest.approx(math.log(300), abs=1e-6)
    assert row["bits_per_byte"] == pytest.approx(row["tokens"] * math.log2(300) / row["bytes"], rel=1e-6)


def test_windows_and_batches(trained: Path, shards: Path, corpus: str) -> None:
    for data in (shards, corpus):
        one = losses(trained, "--data", data, "--batch-size", 1)[0]
        assert losses(trained, "--data", data, "--batch-size", 7)[0]["loss"] == pytest.approx(one["loss"], abs=1e-6)
        short = losses(trained, "--data", data, "--context-length", 4)[0]
        assert short["context_length"] == 4
        assert abs(short["loss"] - one["loss"]) > 1e-4
    assert "has a context of 16" in refused("evaluate", trained, "--data", shards, "--context-length", 17)


def test_bytes_limit_texts_to_whole_documents(trained: Path, corpus: str) -> None:
    texts = texts_of(corpus)
    sizes = [len(text.encode()) for text in texts]
    assert losses(trained, "--data", corpus, "--bytes", sizes[0])[0]["bytes"] == sizes[0]
    assert losses(trained, "--data", corpus, "--bytes", sizes[0] + 1)[0]["bytes"] == sum(sizes[:2])


def test_special_tokens_of_a_tokenizer_are_those_of_the_model(exported: Path, tmp_path: Path) -> None:
    """A folder that is none of ours begins documents as its tokenizer does; ours are as in training."""
    tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing("<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    tokenizer.enable_truncation(3)
    (tmp_path / "page.txt").write_text("abc abc abc abc")
    lengths = {}
    for name, changes in {"ours": {}, "theirs": {"gemstones": {}}}.items():
        shutil.copytree(exported, tmp_path / name)
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
        config = json.loads((exported / "config.json").read_text()) | changes
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (row,) = losses(tmp_path / name, "--data", tmp_path / "page.txt")
        lengths[name] = row["tokens"]
        assert row["bytes"] == 15
    assert lengths["theirs"] == lengths["ours"] + 1


def test_a_table_and_files(trained: Path, exported: Path, shards: Path, tmp_path: Path) -> None:
    rows = losses(trained, exported, "--data", shards)
    for kind, read in {".parquet": pd.read_parquet, ".csv": pd.read_csv}.items():
        out, _ = run("evaluate", trained, exported, "--data", shards, "--output", tmp_path / f"losses{kind}")
        assert f"{rows[0]['bits_per_byte']:.4f}" in out
        assert "nats/token" in out
        table = read(tmp_path / f"losses{kind}")
        assert list(table) == list(rows[0])
        assert table["loss"].tolist() == pytest.approx([row["loss"] for row in rows])


def test_what_does_not_fit_is_said_in_one_line(
    trained: Path,
    exported: Path,
    shards: Path,
    corpus: str,
    build: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = build(tmp_path / "others", vocabulary_size=280)
    assert "another tokenizer" in refused("evaluate", trained, "--data", others)
    assert "another tokenizer" in refused("evaluate", exported, "--data", others)
    assert "not a manifest of a training job" in refused("evaluate", shards, "--data", shards)
    assert "cannot be read" in refused("evaluate", tmp_path / "none.json", "--data", shards)
    assert "no file matches" in refused("evaluate", trained, "--data", tmp_path / "none.json")
    assert "config.json: not found" in refused("evaluate", tmp_path, "--data", shards)
    assert "it is --bytes" in refused("evaluate", trained, "--data", corpus, "--tokens", 10)
    assert "it is --tokens" in refused("evaluate", trained, "--data", shards, "--bytes", 10)
    assert "wanted: .parquet" in refused("evaluate", trained, "--data", shards, "--output", "losses.txt")
    nowhere = tmp_path / "nowhere"
    message = refused("evaluate", trained, "--data", shards, "--output", nowhere / "losses.csv")
    assert message == f"--output {nowhere}/losses.csv: there is no folder {nowhere}"
    assert not nowhere.exists()
    message = refused("evaluate", exported, "--data", shards, "--tokenizer", nowhere)
    assert message == f"--tokenizer {nowhere}: no such file"
    assert "less than the context" in refused("evaluate", trained, "--data", shards, "--tokens", 15)
    assert "--data: " in refused("evaluate", trained, "--data", str(shards.parent / "*.json"))

    alone = shutil.copytree(exported, tmp_path / "alone")
    (alone / "tokenizer.json").unlink()
    assert "name it with --tokenizer" in refused("evaluate", alone, "--data", corpus)
    other = tmp_path / "other.json"
    shutil.copy(exported / "tokenizer.json", other)
    assert losses(alone, "--data", corpus, "--tokenizer", other)[0]["bytes"]
    for model in (trained, exported):
        losses(model, "--data", shards, "--tokenizer", other)
        assert f"{model}: has a tokenizer" in caplog.messages[-1]
        assert f"--tokenizer {other} is for models without one and not used" in caplog.messages[-1]
    assert losses(alone, "--data", shards)  # the very tokens that it was trained on


def test_a_damaged_checkpoint_is_refused(train: Train, tmp_path: Path, shards: Path) -> None:
    manifest = train(tmp_path, 20)
    checkpoint = Path(json.loads(manifest.read_text())["checkpoint"]["path"])
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    assert "damaged" in refused("evaluate", manifest, "--data", shards)
    checkpoint.unlink()
    assert "gone" in refused("evaluate", manifest, "--data", shards)
