"""A checkpoint as the library `transformers` loads it: `Gemstone-64x4/step_00000300/`, named as the released models are.

    <output>/Gemstone-<width>x<depth>/step_<step>/                              main runs
    <output>/Gemstone-<width>x<depth>_lr_ablation/step_<step>/                  learning-rate ablation
    <output>/Gemstone-<width>x<depth>_cooldown/step_<anchor>_cooldown_<step>/   cooldowns

The model is a Llama with GELU in the place of SiLU: what litgpt's model does beyond that is folded into the weights.
Checkpoints have the full weights under litgpt's names whatever strategy wrote them (see `parallel`), so there is nothing
to merge.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemstones import __version__, files
from gemstones.errors import UserError
from gemstones.suite import counting
from gemstones.suite.runs import Run
from gemstones.training.data import read_manifest
from gemstones.training.home import Home
from gemstones.training.model import NORM_EPSILON, ROPE_BASE
from gemstones.training.tokenizer import SEPARATOR

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

# litgpt's modules of a block, and Llama's; the fused qkv is split into three.
BLOCK = {
    "norm_1": "input_layernorm",
    "attn.proj": "self_attn.o_proj",
    "norm_2": "post_attention_layernorm",
    "mlp.fc_1": "mlp.gate_proj",
    "mlp.fc_2": "mlp.up_proj",
    "mlp.proj": "mlp.down_proj",
}


@dataclass(frozen=True)
class Trained:
    """What a job's manifest says of its checkpoint.

    Attributes
    ----------
    step : of the checkpoint: the manifest's, or a later one where the run was beyond it already.
    metrics : files with the losses of the run, after those of the run that it branches from.
    content : the manifest.
    """

    run: Run
    step: int
    checkpoint: Path
    metrics: tuple[Path, ...]
    content: dict[str, Any]

    @property
    def repository(self) -> str:
        told = self.run.phase in ("lr_transfer", "replicate")
        suffix = f"_{self.run.name.rpartition('-')[2]}" if told else ""
        return f"Gemstone-{self.run.shape}" + ("" if self.run.phase == "main" else f"_{self.run.phase}{suffix}")

    @property
    def revision(self) -> str:
        if self.run.is_cooldown:
            return f"step_{self.run.anchor:08d}_cooldown_{self.step:08d}"
        return f"step_{self.step:08d}"


def export(manifest: Path, output: Path, data: Path | None = None) -> Path:
    """Write a job's checkpoint as `<output>/<repository>/<revision>/`, the whole folder or nothing; gives that folder.

    Parameters
    ----------
    manifest : `<folder>/<run>/steps/<step>.json`; checkpoint and metrics are found beside it, wherever <folder> is now.
    data : manifest of the token shards; with it, the folder has the tokenizer.

    Raises
    ------
    UserError
        If the manifest, its checkpoint or its metrics are not there or damaged, the tokens are others than the run was
        trained on, or the folder is there already.
    """
    trained = read_trained(manifest)
    target = output / trained.repository / trained.revision
    if target.exists():
        raise UserError(f"{target}: is there already; remove it to export it again")
    if trained.step != trained.content["step"]:
        log.warning("%s: %s was at step %d already; that is exported", manifest, trained.content["run"], trained.step)
    tokens = _tokens(data, trained) if data else None
    state = read_state(trained)
    weights = llama_weights(state["model"], trained.run)

    from safetensors.torch import save_file

    from gemstones.training import model_card

    card = model_card.describe(trained, state, corpus=tokens["corpus"] if tokens else None)
    with files.atomic_folder(target) as folder:
        separator = _write_tokenizer(tokens["tokenizer"]["file"], trained.run, folder) if tokens else None
        files.write_json(
            {**llama_config(trained.run, separator), "gemstones": _made_by(trained)}, folder / "config.json"
        )
        files.write_with(partial(save_file, weights, metadata={"format": "pt"}), folder / "model.safetensors")
        card.write(folder)
    return target


def read_trained(manifest: Path) -> Trained:
    """What a manifest of a training job says; raises UserError if it is no such file."""
    try:
        content = json.loads(manifest.read_text())
        run = Run.model_validate(content["specification"])
        home = Home(manifest.parent.parent, content["key"])
        metrics = [home.metrics]
        if parent := content["parent"]:
            metrics.insert(0, Home(home.folder.parent / parent["run"], parent["key"]).metrics)
        checkpoint = home.checkpoints / Path(content["checkpoint"]["path"]).name
        return Trained(run, content["checkpoint"]["step"], checkpoint, tuple(metrics), content)
    except OSError as error:
        raise UserError(f"{manifest}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{manifest}: not a manifest of a training job, or one of another version") from None


def llama_weights(weights: dict[str, Tensor], run: Run) -> dict[str, Tensor]:
    """Weights of litgpt's model under Llama's names, with the embedding scale and the norms' offset folded in.

    Raises
    ------
    UserError
        If they are not the weights of the run's shape.
    """
    architecture = counting.Architecture(run.head_size, run.vocabulary_size, run.context_length)
    count = sum(weight.numel() for weight in weights.values())
    if count != (due := counting.params(run.width, run.depth, architecture)):
        raise UserError(f"{run.name}: the checkpoint has {count:,} parameters, a model of {run.shape} {due:,}")
    scale = math.sqrt(run.width) if run.scale_embeddings else 1.0
    offset = 1.0 if getattr(run, "norm_offset", False) else 0.0
    query = counting.heads(run.width, run.head_size) * run.head_size
    key = counting.query_groups(run.width, run.head_size) * run.head_size
    llama = {
        "model.embed_tokens.weight": weights["transformer.wte.weight"] * scale,
        "model.norm.weight": weights["transformer.ln_f.weight"] + offset,
        "lm_head.weight": weights["lm_head.weight"],
    }
    for layer in range(run.depth):
        old, new = f"transformer.h.{layer}", f"model.layers.{layer}"
        # All queries, then all keys, then all values; both models rotate the two halves of a head against each other.
        qkv = weights[f"{old}.attn.qkv.weight"]
        llama[f"{new}.self_attn.q_proj.weight"] = qkv[:query]
        llama[f"{new}.self_attn.k_proj.weight"] = qkv[query : query + key]
        llama[f"{new}.self_attn.v_proj.weight"] = qkv[query + key :]
        for module, name in BLOCK.items():
            weight = weights[f"{old}.{module}.weight"]
            llama[f"{new}.{name}.weight"] = weight + offset if module.startswith("norm") else weight
    return llama


def llama_config(run: Run, separator: int | None = None) -> dict[str, Any]:
    """The model's configuration; `separator` is the token between documents, where the tokenizer is known."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": run.vocabulary_size,
        "hidden_size": run.width,
        "intermediate_size": counting.MLP_RATIO * run.width,
        "num_hidden_layers": run.depth,
        "num_attention_heads": counting.heads(run.width, run.head_size),
        "num_key_value_heads": counting.query_groups(run.width, run.head_size),
        "head_dim": run.head_size,
        "hidden_act": "gelu_pytorch_tanh",
        "max_position_embeddings": run.context_length,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": float(ROPE_BASE),
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        # Said also where there is none: Llama's defaults are tokens 1 and 2.
        "bos_token_id": separator,
        "eos_token_id": separator,
        "torch_dtype": "float32",
    }


def _made_by(trained: Trained) -> dict[str, Any]:
    return {
        "version": __version__,
        "specification": trained.run.model_dump(mode="json"),
        "checkpoint_sha256": trained.content["checkpoint"]["sha256"],
        "data_sha256": trained.content["data_sha256"],
    }


def read_state(trained: Trained) -> dict[str, Any]:
    """The checkpoint, whose tensors are read as they are needed: the optimizer's moments stay in the file.

    Raises
    ------
    UserError
        If it is not there, or not what was written.
    """
    import torch

    path, again = trained.checkpoint, f"train {trained.run.name} to step {trained.step} again"
    if not path.is_file():
        raise UserError(f"{path}: the checkpoint is gone; {again}")
    if files.sha256(path) != trained.content["checkpoint"]["sha256"]:
        raise UserError(f"{path}: damaged (its checksum is another one); {again}")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return state


def _tokens(data: Path, trained: Trained) -> dict[str, Any]:
    """The shards' manifest, with the tokenizer's path; both must be those of the run."""
    tokens = read_manifest(data)
    if tokens["tokens_sha256"] != trained.content["data_sha256"]:
        raise UserError(f"{data}: {trained.run.name} was trained on other tokens")
    tokenizer = data.parent / tokens["tokenizer"]["file"]
    if not tokenizer.is_file() or files.sha256(tokenizer) != tokens["tokenizer"]["sha256"]:
        raise UserError(f"{tokenizer}: the tokenizer is gone or changed; make the shards again")
    return {**tokens, "tokenizer": {"file": tokenizer}}


def _write_tokenizer(tokenizer: Path, run: Run, folder: Path) -> int:
    """Copy the tokenizer; gives the token between documents."""
    from tokenizers import Tokenizer

    files.write_with(partial(shutil.copyfile, tokenizer), folder / "tokenizer.json")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SEPARATOR,
        "eos_token": SEPARATOR,
        "model_max_length": run.context_length,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
    }
    files.write_json(settings, folder / "tokenizer_config.json")
    separator = Tokenizer.from_file(str(tokenizer)).token_to_id(SEPARATOR)
    assert separator is not None  # the shards were made with it
    return separator
