"""Models that can be evaluated: a checkpoint of ours, named by its manifest, or a folder as Hugging Face lays it out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gemstones import files
from gemstones.errors import UserError
from gemstones.training import model as architecture
from gemstones.training.data import read_manifest
from gemstones.training.export import Trained, read_state, read_trained
from gemstones.training.tokenizer import SEPARATOR

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """A model on its device.

    Attributes
    ----------
    name : as the user named it, a path.
    logits : (batch, context) token ids → (batch, context, vocabulary).
    context_length : the longest; none where there is no end to it.
    mixed : whether it computes in bf16, as a run of precision bf16-mixed does in its own evaluations.
    tokenizer : its file, if it is known.
    data_sha256 : of the tokens that it was trained on, if it is one of ours.
    separator : token that ends a document, by name or number.
    own_special_tokens : whether the tokenizer adds its own special tokens to each document, such as one that begins it.
    """

    name: str
    logits: Callable[[torch.Tensor], torch.Tensor]
    vocabulary_size: int
    context_length: int | None
    mixed: bool = False
    tokenizer: Path | None = None
    data_sha256: str | None = None
    separator: str | int | None = SEPARATOR
    own_special_tokens: bool = False


def open_model(path: Path, device: torch.device, tokenizer: Path | None = None) -> Model:
    """The model of a training manifest or of a folder; `tokenizer` is that of a model whose own is not found.

    Raises
    ------
    UserError
        If it is not there, damaged, or of a kind that cannot be evaluated.
    """
    if path.is_dir():
        from gemstones.evaluation.hugging_face import open_folder

        return open_folder(path, device, tokenizer)
    trained = read_trained(path)
    if trained.step != trained.content["step"]:
        log.warning("%s: the run was at step %d already; that is evaluated", path, trained.step)
    return open_checkpoint(trained, path, device, tokenizer)


def open_checkpoint(trained: Trained, manifest: Path, device: torch.device, tokenizer: Path | None = None) -> Model:
    """The model of a checkpoint that a manifest names."""
    run = trained.run
    return Model(
        str(manifest),
        build(lambda: architecture.build_model(run), read_state(trained)["model"], device),
        run.vocabulary_size,
        run.context_length,
        run.precision == "bf16-mixed",
        choose_tokenizer(str(manifest), _tokenizer(manifest, trained), tokenizer),
        trained.content["data_sha256"],
    )


def choose_tokenizer(name: str, own: Path | None, given: Path | None) -> Path | None:
    """A model's own tokenizer, or the given one where it has none: with several models, that is for some of them."""
    if own and given and not own.samefile(given):
        log.warning("%s: has a tokenizer, %s; --tokenizer %s is for models without one and not used", name, own, given)
    return own or given


def best_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def build(make: Callable[[], Any], weights: Mapping[str, torch.Tensor], device: torch.device) -> Any:
    """litgpt's model with the given weights, without first drawing others."""
    with torch.device("meta"):
        model = make()
    model.load_state_dict(weights, assign=True)
    model.cos, model.sin = model.rope_cache()
    return model.to(device).eval()


def check_same(names: Iterable[str], due: Iterable[str], where: Path) -> None:
    """Raise UserError where weights are missing, or would be left out."""
    found, wanted = set(names), set(due)
    for some, what in ((wanted - found, "missing"), (found - wanted, "there, but the model has no place for it")):
        if some:
            more = f" (and {len(some) - 1} others)" if len(some) > 1 else ""
            raise UserError(f"{where}: the weight {min(some)} is {what}{more}")


def _tokenizer(manifest: Path, trained: Trained) -> Path | None:
    """That of the shards beside the runs, if these are still the ones that the run was trained on."""
    data = manifest.parent.parent.parent / "data" / "manifest.json"
    if not data.is_file():
        return None
    content = read_manifest(data)
    tokenizer = data.parent / content["tokenizer"]["file"]
    same = content["tokens_sha256"] == trained.content["data_sha256"] and tokenizer.is_file()
    return tokenizer if same and files.sha256(tokenizer) == content["tokenizer"]["sha256"] else None
