"""What models are evaluated on, as tokens: a split of token shards, or texts in a model's own tokens."""

from __future__ import annotations

import array
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gemstones import files
from gemstones.errors import UserError
from gemstones.evaluation.models import Model
from gemstones.training import corpus
from gemstones.training.data import Split, Tokens, read_manifest
from gemstones.training.evaluate import Windowed
from gemstones.training.pieces import batched

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COUNTED = 2**20  # tokens at a time


class Encoded:
    """Tokens in memory."""

    def __init__(self, tokens: NDArray[np.uint32]) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def window(self, start: int, length: int) -> NDArray[np.int64]:
        return self._tokens[start : start + length].astype(np.int64)


@dataclass(frozen=True)
class Set:
    """A sequence of tokens, of which those from the second one to the one after `predicted` are predicted.

    Attributes
    ----------
    bytes : of UTF-8 that the predicted tokens stand for; none if the tokenizer does not tell. What separates documents has none.
    """

    tokens: Windowed
    predicted: int
    bytes: int | None
    split: str | None
    tokenizer_sha256: str


def is_shards(data: str) -> bool:
    """Whether a path names a manifest of shards: an object over several lines, while JSON lines have one on each."""
    path = Path(data)
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open(errors="replace") as file:
        return file.readline(1000).strip() == "{"


def of_shards(path: Path, model: Model, split: Split, tokens: int | None, context_length: int) -> Set:
    """The first windows of a split, as evaluations in training take them: `tokens` of it, by default as many as those.

    Raises
    ------
    UserError
        If shards are missing, or were made by another tokenizer than the model's.
    """
    content = read_manifest(path)
    _check_tokenizer(path, content, model)
    sequence = Tokens(path, split)
    wanted = content["specification"]["validation_tokens"] if tokens is None else tokens
    predicted = min(wanted, len(sequence) - 1) // context_length * context_length
    if not predicted:
        raise UserError(
            f"{path}: {min(wanted, len(sequence))} tokens of the {split} split are less than the context of {context_length}"
        )
    tokenizer = path.parent / content["tokenizer"]["file"]
    if not tokenizer.is_file() or files.sha256(tokenizer) != content["tokenizer"]["sha256"]:
        raise UserError(f"{tokenizer}: the tokenizer is gone or changed; make the shards again")
    lengths = token_bytes(read_tokenizer(tokenizer))
    counted = None if lengths is None else _bytes(sequence, predicted, lengths)
    return Set(sequence, predicted, counted, split, content["tokenizer"]["sha256"])


def of_texts(data: str, model: Model, least_bytes: int | None) -> Set:
    """Documents of a corpus in the model's own tokens, all of which are predicted: before the first one is a separator.

    Parameters
    ----------
    data : as `data.corpus` in a config.
    least_bytes : so many, and what is left of the last document; by default all.

    Raises
    ------
    UserError
        If the model has no tokenizer or separator, or the corpus cannot be read.
    """
    if model.tokenizer is None:
        raise UserError(f"{model.name}: has no tokenizer beside it, which texts need; name it with --tokenizer")
    tokenizer = read_tokenizer(model.tokenizer)
    separator = model.separator if isinstance(model.separator, int) else tokenizer.token_to_id(model.separator or "")
    if separator is None:
        what = (
            f"{model.tokenizer}: has no token {model.separator}"
            if model.separator
            else f"{model.name}: no eos_token_id"
        )
        raise UserError(f"{what}, which separates documents")
    tokens, size = array.array("I", [separator]), 0
    try:
        for documents in batched(_first(corpus.pieces(data), least_bytes)):
            texts = [text for _, text in documents]
            for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=model.own_special_tokens):
                tokens.extend(encoding.ids)
                if not (model.own_special_tokens and tokens[-1] == separator):
                    tokens.append(separator)
            size += sum(len(text.encode()) for text in texts)
    except UserError as error:
        raise UserError(str(error).replace("data.corpus", "--data")) from None
    found = np.array(tokens, np.uint32)
    if len(found) == 1:
        raise UserError(f"--data: '{data}' has no documents")
    if found.max() >= model.vocabulary_size:
        raise UserError(
            f"{model.tokenizer}: has tokens up to {found.max()}, but {model.name} a vocabulary of {model.vocabulary_size}"
        )
    return Set(Encoded(found), len(found) - 1, size, None, files.sha256(model.tokenizer))


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither cuts nor fills up; raises UserError if it cannot be read."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise UserError(f"{path}: cannot be read as a tokenizer: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_bytes(tokenizer: Tokenizer) -> NDArray[np.int64] | None:
    """(vocabulary,) bytes that each token stands for; none if the tokenizer is not one of bytes.

    In a byte-level tokenizer, each character of a token's name stands for a byte (Radford et al. 2019). Special tokens are no text.
    """
    decoder = json.loads(tokenizer.to_str())["decoder"] or {}
    if "ByteLevel" not in {part["type"] for part in decoder.get("decoders", [decoder]) if part}:
        return None
    vocabulary = tokenizer.get_vocab()
    lengths = np.zeros(1 + max(vocabulary.values()), np.int64)
    for name, token in vocabulary.items():
        lengths[token] = len(name)
    for token, added in tokenizer.get_added_tokens_decoder().items():
        lengths[token] = 0 if added.special else len(added.content.encode())
    return lengths


def _bytes(sequence: Windowed, predicted: int, lengths: NDArray[np.int64]) -> int:
    parts = ((start, min(COUNTED, predicted - start)) for start in range(0, predicted, COUNTED))
    return sum(int(lengths[sequence.window(1 + start, length)].sum()) for start, length in parts)


def _first(pieces: list[corpus.Piece], least_bytes: int | None) -> Iterator[tuple[str, str]]:
    size = 0
    for piece in pieces:
        for name, text in piece.documents():
            if least_bytes is not None and size >= least_bytes:
                return
            size += len(text.encode())
            if text:
                yield name, text


def _check_tokenizer(path: Path, content: dict[str, Any], model: Model) -> None:
    if model.data_sha256 != content["tokens_sha256"]:
        if model.tokenizer is None:
            raise UserError(f"{model.name}: its tokenizer is not beside it; name it with --tokenizer")
        if files.sha256(model.tokenizer) != content["tokenizer"]["sha256"]:
            raise UserError(
                f"{path}: the shards were made by another tokenizer than {model.name}'s, {model.tokenizer}; "
                "evaluate it on texts"
            )
    if content["vocabulary_size"] > model.vocabulary_size:
        raise UserError(
            f"{path}: the tokens have a vocabulary of {content['vocabulary_size']}, {model.name} of {model.vocabulary_size}"
        )
