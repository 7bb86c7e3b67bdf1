"""A corpus of any size into token shards: a file a task, on many processes, in bounded memory, and what is done stays done.

Each file of JSON lines (or some .txt files together) becomes a *piece*, a folder under `pieces/` named by a hash of all that
decides its tokens, and complete when it has that name. Whoever starts again after a kill, or with more files, finds the pieces
that are there and makes the others. The shards are links to the pieces' files, so they take no further space.

Order of documents: the held-out ones, in the order of their ids' hashes over the whole corpus. The others, file by file, in the
order of the files' hashes and within a file of their ids' hashes; .txt files count as one. Windows of them are what a seed
shuffles, all of them in every epoch (`data.Batches`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gemstones import __version__, files
from gemstones.errors import UserError
from gemstones.study import Data
from gemstones.training import corpus
from gemstones.training.ordered import Unordered, write
from gemstones.training.pieces import Tokenise, tokenise_all
from gemstones.training.tokenizer import make_tokenizer

log = logging.getLogger(__name__)


def build(
    data: Data,
    vocabulary_size: int,
    *,
    manifest: str | Path,
    tokenizer: str | Path,
    shards: str | Path,
    processes: int = 1,
) -> None:
    """Tokenise a corpus into shards `train-00000.bin`, …, `validation-00000.bin` and describe them in a manifest.

    Beside each shard, `….documents.npy` has the places in it, in tokens, where documents begin.

    Parameters
    ----------
    data : the corpus, its split and the size of a shard.
    vocabulary_size : of the models; no token id reaches it.
    manifest, tokenizer, shards : outputs, two files and a folder. The manifest is written last. Beside the folder of the
        shards is one of pieces.
    processes : how many tokenise; the outputs are the same with any number.

    Raises
    ------
    UserError
        If the corpus, the tokenizer or the vocabulary do not fit, or a split is too small.
    """
    manifest, tokenizer, shards = Path(manifest), Path(tokenizer), Path(shards)
    pieces, store = corpus.pieces(data.corpus), shards.with_name("pieces")
    model = make_tokenizer(data, pieces, vocabulary_size)
    files.write_with(lambda path: model.save(str(path)), tokenizer)
    tokenise = Tokenise(tokenizer, files.sha256(tokenizer), vocabulary_size, data, store)
    for unfinished in store.glob(".*"):
        shutil.rmtree(unfinished)
    records = []
    for record in tokenise_all(tokenise, pieces, processes):
        records.append(record)
        sums = ", ".join(f"{record[split]['documents']} {split}" for split in ("train", "validation"))
        log.info("%d of %d: %s, documents: %s", len(records), len(pieces), record["name"], sums)
    documents = {split: sum(record[split]["documents"] for record in records) for split in ("train", "validation")}
    if not any(documents.values()):
        raise UserError(f"data.corpus: '{data.corpus}' has no documents")
    for split, count in documents.items():
        if not count:
            raise UserError(
                f"data.validation_fraction: with {data.validation_fraction:g} of the {sum(documents.values())} documents "
                f"held out by hash, the {split} split has none; choose another fraction or a corpus of more documents"
            )
    held_out, validation_counts = _held_out(tokenise, records, shards)
    if held_out["tokens"] <= data.validation_tokens:
        raise UserError(
            f"data.validation_tokens: an evaluation wants {data.validation_tokens} tokens and the next one, the held-out "
            f"documents have {held_out['tokens']}; lower it or raise data.validation_fraction"
        )
    train_counts = sum(np.load(store / record["key"] / "counts.npy") for record in records)
    # Over the tokens and not the files, so that another size of shards leaves the corpus what it is.
    identity = [tokenise.dtype.name, [record["train"]["sha256"] for record in records], held_out["sha256"]]
    splits = {
        "train": {
            "documents": documents["train"],
            "tokens": sum(record["train"]["tokens"] for record in records),
            "shards": list(_linked(records, store, shards)),
        },
        "validation": {key: held_out[key] for key in ("documents", "tokens", "shards")},
    }
    for shard in (shard for split in splits.values() for shard in split["shards"]):
        for file in ("file", "documents"):
            shard[file] = os.path.relpath(shards / shard[file], manifest.parent)
    for split, described in splits.items():
        log.info("%s: %d documents, %d tokens", split, described["documents"], described["tokens"])
    files.write_json(
        {
            "corpus": data.corpus,
            "pieces": [{key: record[key] for key in ("name", "bytes", "sha256")} for record in records],
            "tokenizer": {"file": os.path.relpath(tokenizer, manifest.parent), "sha256": tokenise.tokenizer_sha256},
            "vocabulary_size": vocabulary_size,
            "dtype": tokenise.dtype.name,
            "splits": splits,
            "unigram_entropy": unigram_entropy(train_counts, validation_counts),
            "tokens_sha256": hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
            "specification": data.model_dump(mode="json"),
            "gemstones_version": __version__,
        },
        manifest,
    )
    used = {record["key"] for record in records}
    for folder in store.iterdir():
        if folder.name not in used:
            shutil.rmtree(folder)


def unigram_entropy(train: NDArray[np.int64], validation: NDArray[np.int64]) -> float:
    """Nats per validation token under the training unigram distribution: what a model without context could reach.

    Parameters
    ----------
    train, validation : (vocabulary,) counts of each token. One is added to the training counts, for unseen tokens.
    """
    probabilities = (train + 1) / (train + 1).sum()
    return float(-(validation * np.log(probabilities)).sum() / validation.sum())


def _held_out(
    tokenise: Tokenise, records: list[dict[str, Any]], shards: Path
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """The held-out documents of all pieces, in one order."""
    folders = [tokenise.store / record["key"] for record in records]
    with tempfile.TemporaryDirectory(prefix=".", dir=tokenise.store) as name:
        together = Path(name, "validation")
        with together.open("wb") as file:
            for folder, record in zip(folders, records, strict=True):
                for shard in record["validation"]["shards"]:
                    with (folder / shard["file"]).open("rb") as source:
                        shutil.copyfileobj(source, file)
        places, lengths = (
            np.concatenate([np.load(folder / f"validation.{what}.npy") for folder in folders])
            for what in ("places", "lengths")
        )
        unordered = Unordered(together, tokenise.dtype, places, lengths)
        order, size = np.argsort(places, kind="stable"), tokenise.data.shard_tokens
        return write(unordered, order, shards, "validation", size, tokenise.vocabulary_size)


def _linked(records: Iterable[dict[str, Any]], store: Path, shards: Path) -> Iterator[dict[str, Any]]:
    """The training shards under their final names."""
    every = ((store / record["key"], shard) for record in records for shard in record["train"]["shards"])
    for number, (folder, shard) in enumerate(every):
        name = f"train-{number:05d}"
        final = {"file": f"{name}.bin", "documents": f"{name}.documents.npy"}
        for key, file in final.items():
            (shards / file).unlink(missing_ok=True)
            try:
                os.link(folder / shard[key], shards / file)
            except OSError:  # a file system without hard links
                shutil.copyfile(folder / shard[key], shards / file)
        yield shard | final
