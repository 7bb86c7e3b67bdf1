"""Models from folders as Hugging Face lays them out: `config.json`, `*.safetensors` and, for texts, `tokenizer.json`.

Llama and Gemma (the kind of the authors' checkpoints, and of ours as exported) run in litgpt's model, as training does: the
inverse of `training.export`. Others run in the library transformers, where that is installed.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch

from gemstones.errors import UserError
from gemstones.evaluation.models import Model, build, check_same, choose_tokenizer
from gemstones.training import model as architecture
from gemstones.training.export import BLOCK

# Gemma scales embeddings, has norms that multiply by 1 + weight, and ties the two embedding matrices unless told otherwise.
KINDS = ("llama", "gemma")
MLPS = {
    "silu": ("LLaMAMLP", "none"),
    "gelu": ("GemmaMLP", "none"),
    "gelu_pytorch_tanh": ("GemmaMLP", "tanh"),
}
# Where a config does not say.
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"hidden_act": "silu", "tie_word_embeddings": False, "max_position_embeddings": 2048},
    "gemma": {"hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": True, "max_position_embeddings": 8192},
}
NORM_EPSILON, ROPE_BASE = 1e-6, 10_000.0
# Whole numbers above 0; the optional ones may be null or not there.
COUNTS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size",
)  # fmt: skip
OPTIONAL_COUNTS = ("num_key_value_heads", "head_dim")


def open_folder(folder: Path, device: torch.device, tokenizer: Path | None = None) -> Model:
    """The model of a folder, in 32-bit floats.

    Raises
    ------
    UserError
        If a file is missing or damaged, a value of config.json cannot be, or the model is one that only transformers knows, and that is not installed.
    """
    config = _read_config(folder)
    if fault := _unknown(config):
        model, vocabulary_size, context_length = _of_transformers(folder, fault, device)
    else:
        settings = litgpt_settings(config)
        weights = litgpt_weights(_read_weights(folder), config, settings, folder)
        gemma = config["model_type"] == "gemma"
        try:
            model = build(lambda: architecture.build(settings, gemma), weights, device)
        except RuntimeError as error:  # which names the weights of another size, a line each
            raise UserError(f"{folder}: the weights are not of the sizes in config.json: {_last_line(error)}") from None
        except (TypeError, ValueError, AssertionError) as error:
            raise UserError(f"{folder}/config.json: is no model of litgpt's: {_last_line(error)}") from None
        vocabulary_size, context_length = settings["vocab_size"], settings["block_size"]
    own = config.get("gemstones", {})
    beside = folder / "tokenizer.json"
    ends = config.get("eos_token_id")
    return Model(
        str(folder),
        model,
        vocabulary_size,
        context_length,
        tokenizer=choose_tokenizer(str(folder), beside if beside.is_file() else None, tokenizer),
        data_sha256=own.get("data_sha256"),
        separator=ends[0] if isinstance(ends, list) else ends,
        own_special_tokens=not own,
    )


def litgpt_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of litgpt's `Config` for a Llama's or Gemma's config.json."""
    config = DEFAULTS[config["model_type"]] | config
    mlp, approximation = MLPS[_activation(config)]
    heads = config["num_attention_heads"]
    return {
        "name": "evaluated",
        "block_size": config["max_position_embeddings"],
        "n_layer": config["num_hidden_layers"],
        "n_embd": config["hidden_size"],
        "n_head": heads,
        "n_query_groups": config.get("num_key_value_heads") or heads,
        "head_size": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab_size": config["vocab_size"],
        "padded_vocab_size": config["vocab_size"],
        "norm_class_name": "RMSNorm",
        "norm_eps": config.get("rms_norm_eps", NORM_EPSILON),
        "mlp_class_name": mlp,
        "gelu_approximate": approximation,
        "intermediate_size": config["intermediate_size"],
        "bias": False,
        "lm_head_bias": False,
        "parallel_residual": False,
        "rotary_percentage": 1.0,
        "rope_base": _rope_base(config),
        "scale_embeddings": config["model_type"] == "gemma",
    }


def litgpt_weights(
    weights: dict[str, torch.Tensor], config: dict[str, Any], settings: dict[str, Any], where: Path
) -> dict[str, torch.Tensor]:
    """Llama's weights under litgpt's names, in 32-bit floats; queries, keys and values are put together again.

    Raises
    ------
    UserError
        Naming `where`, if weights are missing or others are there.
    """
    tied = (DEFAULTS[config["model_type"]] | config)["tie_word_embeddings"]
    names = {"transformer.wte": "model.embed_tokens", "transformer.ln_f": "model.norm"}
    names["lm_head"] = "model.embed_tokens" if tied else "lm_head"
    joined = {}
    for layer in range(settings["n_layer"]):
        ours, theirs = f"transformer.h.{layer}", f"model.layers.{layer}"
        names |= {f"{ours}.{module}": f"{theirs}.{name}" for module, name in BLOCK.items()}
        joined[f"{ours}.attn.qkv"] = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
    # Older files have the frequencies of rotations, which follow from the config; a tied matrix may be there twice.
    ignored = {name for name in weights if name.endswith("rotary_emb.inv_freq")} | (
        {"lm_head.weight"} if tied else set()
    )
    due = {f"{name}.weight" for name in (*names.values(), *(name for parts in joined.values() for name in parts))}
    check_same(weights.keys() - ignored, due, where)
    found = {f"{ours}.weight": weights[f"{theirs}.weight"].float() for ours, theirs in names.items()}
    for ours, parts in joined.items():
        found[f"{ours}.weight"] = torch.cat([weights[f"{part}.weight"].float() for part in parts])
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text())
        config["model_type"]
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; wanted: the folder of a model, or the manifest of a training job"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: not the configuration of a language model") from None
    if fault := _fault(config):
        raise UserError(f"{path}: {fault}")
    return config


def _fault(config: dict[str, Any]) -> str | None:
    """What no model could have under a key that is read here."""
    ends = config.get("eos_token_id")
    first = ends[0] if isinstance(ends, list) and ends else ends
    if not (first is None or _is_count(first, least=0)):
        return f"eos_token_id is {json.dumps(ends)}; wanted: a token's number, or a list of such"
    if not isinstance(config.get("gemstones", {}), dict):
        return f"gemstones is {json.dumps(config['gemstones'])}; wanted: what gemstones export writes"
    if config["model_type"] not in KINDS:
        return None
    config = DEFAULTS[config["model_type"]] | config
    for name in COUNTS:
        if name not in config:
            return f"has no {name}"
    for name in (*COUNTS, *(name for name in OPTIONAL_COUNTS if config.get(name) is not None)):
        if not _is_count(config[name]):
            return f"{name} is {json.dumps(config[name])}; wanted: a whole number above 0"
    heads, groups = config["num_attention_heads"], config.get("num_key_value_heads")
    if groups and heads % groups:
        return f"num_key_value_heads is {groups}; wanted: a divisor of num_attention_heads, {heads}"
    if not config.get("head_dim") and config["hidden_size"] % (2 * heads):
        return f"hidden_size is {config['hidden_size']}; wanted: an even multiple of num_attention_heads, {heads}"
    if (config.get("head_dim") or 2) % 2:
        return f"head_dim is {config['head_dim']}; wanted: an even number, since rotations turn pairs"
    for name in ("rope_parameters", "rope_scaling"):
        if not isinstance(config.get(name) or {}, dict):
            return f"{name} is {json.dumps(config[name])}; wanted: a mapping"
    for name, value in {"rms_norm_eps": config.get("rms_norm_eps", 1), "rope_theta": _rope_base(config)}.items():
        if not isinstance(value, int | float) or value <= 0:
            return f"{name} is {json.dumps(value)}; wanted: a number above 0"
    if not isinstance(_activation(config), str):
        return f"hidden_act is {json.dumps(config['hidden_act'])}; wanted: a name, such as {next(iter(MLPS))}"
    return None


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _activation(config: dict[str, Any]) -> str:
    name: str = config.get("hidden_activation") or config["hidden_act"]
    # Gemma's first configs say gelu and mean its approximation.
    return "gelu_pytorch_tanh" if config["model_type"] == "gemma" else name


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _rope_base(config: dict[str, Any]) -> Any:
    return (_rope(config) or config).get("rope_theta", ROPE_BASE)


def _unknown(config: dict[str, Any]) -> str | None:
    """What litgpt's model, as it is used here, would get wrong."""
    kind = config["model_type"]
    if kind not in KINDS:
        return f"model_type is {kind}"
    config = DEFAULTS[kind] | config
    rope = _rope(config)
    unlike = {
        "hidden_act": _activation(config) not in MLPS and config["hidden_act"],
        "rope_scaling": rope.get("rope_type", rope.get("type", "default")) != "default" and rope,
        **{name: config.get(name) for name in ("attention_bias", "mlp_bias", "quantization_config")},
        "partial_rotary_factor": {**config, **rope}.get("partial_rotary_factor", 1) != 1 and "below 1",
    }
    return next((f"{name} is {value}" for name, value in unlike.items() if value), None)


def _read_weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: has no *.safetensors")
    weights: dict[str, torch.Tensor] = {}
    for path in paths:
        try:
            weights |= load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path}: damaged, or no such file: {error}") from None
    return weights


def _of_transformers(folder: Path, fault: str, device: torch.device) -> tuple[Any, int, int | None]:
    """Logits, vocabulary and context, of which some models have no end."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            f"{folder}/config.json: {fault}; such a model needs the library transformers: install the extra hf in an environment "
            "of its own (as make test-hf does), and call gemstones there"
        )
    from transformers import AutoModelForCausalLM  # type: ignore[import-not-found, unused-ignore]

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: transformers cannot load it: {_last_line(error)}") from None
    model.to(device).eval()
    context_length = getattr(model.config, "max_position_embeddings", None)
    return lambda tokens: model(tokens, use_cache=False).logits, model.config.vocab_size, context_length


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
