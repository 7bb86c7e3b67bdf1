"""The tokenizer of a corpus: a given one, in the format of Hugging Face's `tokenizers`, or one trained on the corpus."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gemstones.errors import UserError
from gemstones.study import Data
from gemstones.training.corpus import Piece, position

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEPARATOR = "<|endoftext|>"


def make_tokenizer(data: Data, pieces: Iterable[Piece], vocabulary_size: int) -> Tokenizer:
    """The tokenizer of a file, or a byte-level BPE trained on the training split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    path = data.tokenizer
    if path is not None:
        try:
            tokenizer = Tokenizer.from_file(path)
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"data.tokenizer: {path} cannot be read as a tokenizer: {error}") from None
        if tokenizer.token_to_id(SEPARATOR) is None:
            raise UserError(f"data.tokenizer: {path} has no token {SEPARATOR}, which separates documents")
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size, special_tokens=[SEPARATOR], initial_alphabet=alphabet, show_progress=False
        )
        documents = (document for piece in pieces for document in piece.documents())
        texts = (text for name, text in documents if position(name) >= data.validation_fraction)
        tokenizer.train_from_iterator(texts, trainer)
    size = 1 + max(tokenizer.get_vocab().values())
    if size > vocabulary_size:
        raise UserError(f"suite.vocabulary_size: {vocabulary_size} is less than the {size} tokens of the tokenizer")
    return tokenizer
