"""Folders of Hugging Face without the library transformers; with it, see tests/unit/training/test_transformers.py."""

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from gemstones.training.export import export
from tests.commands import refused, run
from tests.unit.training.conftest import Train


@pytest.fixture(scope="module")
def exported(train: Train, tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("export")
    return export(train(folder / "training", 10), folder, shards)


def changed(exported: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(exported, folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def loss(folder: Path, shards: Path) -> float:
    value: float = json.loads(run("evaluate", folder, "--data", shards, "--json")[0])[0]["loss"]
    return value


def test_weights_in_several_files_are_those_of_one(exported: Path, shards: Path, tmp_path: Path) -> None:
    weights = load_file(exported / "model.safetensors")
    folder = changed(exported, tmp_path / "parts")
    (folder / "model.safetensors").unlink()
    for number, name in enumerate(weights):
        save_file({name: weights[name]}, folder / f"model-{number:05d}-of-{len(weights):05d}.safetensors")
    assert loss(folder, shards) == loss(exported, shards)


def test_tied_embeddings_need_one_matrix(exported: Path, shards: Path, tmp_path: Path) -> None:
    weights = load_file(exported / "model.safetensors")
    folder = changed(exported, tmp_path / "tied", tie_word_embeddings=True)
    both = loss(folder, shards)
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors")
    assert loss(folder, shards) == both != loss(exported, shards)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "mamba"}, "model_type is mamba"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling is {'rope_type': 'llama3'"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"mlp_bias": True}, "mlp_bias is True"),
        ({"hidden_act": "relu2"}, "hidden_act is relu2"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
    ],
)
@pytest.mark.skipif(importlib.util.find_spec("transformers") is not None, reason="transformers is installed")
def test_what_needs_transformers_is_said(
    exported: Path, shards: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    message = refused("evaluate", changed(exported, tmp_path / "folder", **changes), "--data", shards)
    assert said in message
    assert "needs the library transformers" in message


def test_folders_that_are_not_whole_are_refused(exported: Path, shards: Path, tmp_path: Path) -> None:
    folder = changed(exported, tmp_path / "deeper", num_hidden_layers=2)
    assert "weight model.layers.1.input_layernorm.weight is missing (and 8 others)" in refused(
        "evaluate", folder, "--data", shards
    )
    folder = changed(exported, tmp_path / "shallower")
    weights = load_file(folder / "model.safetensors")
    second = {name.replace("layers.0", "layers.1"): weights[name].clone() for name in weights if "layers.0" in name}
    save_file(weights | second, folder / "model.safetensors")
    assert "the model has no place for it (and 8 others)" in refused("evaluate", folder, "--data", shards)
    folder = changed(exported, tmp_path / "wider", intermediate_size=64)
    assert "not of the sizes in config.json" in refused("evaluate", folder, "--data", shards)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert "damaged" in refused("evaluate", folder, "--data", shards)
    file.unlink()
    assert "has no *.safetensors" in refused("evaluate", folder, "--data", shards)
    (folder / "config.json").write_text("{}")
    assert "not the configuration of a language model" in refused("evaluate", folder, "--data", shards)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("hidden_size", "a", "a whole number above 0"),
        ("hidden_size", 33, "an even multiple of num_attention_heads"),
        ("num_attention_heads", 0, "a whole number above 0"),
        ("num_key_value_heads", 3, "a divisor of num_attention_heads"),
        ("num_hidden_layers", True, "a whole number above 0"),
        ("max_position_embeddings", 0, "a whole number above 0"),
        ("max_position_embeddings", "x", "a whole number above 0"),
        ("head_dim", 15, "an even number"),
        ("eos_token_id", [], "a token's number"),
        ("rope_scaling", "x", "a mapping"),
        ("rope_theta", "x", "a number above 0"),
        ("rms_norm_eps", None, "a number above 0"),
        ("hidden_act", None, "a name, such as silu"),
        ("gemstones", 3, "what gemstones export writes"),
    ],
)
def test_a_value_that_cannot_be_names_its_key(
    exported: Path, shards: Path, tmp_path: Path, key: str, value: Any, wanted: str
) -> None:
    # Exports name the base of rotations in a section of its own, and the size of heads; both come before the key.
    before = {"rope_theta": "rope_parameters", "rope_scaling": "rope_parameters", "hidden_size": "head_dim"}
    changes = {before[key]: None} if key in before else {}
    folder = changed(exported, tmp_path / "folder", **changes, **{key: value})
    message = refused("evaluate", folder, "--data", shards)
    assert message.startswith(f"{folder}/config.json: {key} is {json.dumps(value)}; wanted: {wanted}")


def test_a_key_that_is_not_there_is_named(exported: Path, shards: Path, tmp_path: Path) -> None:
    folder = changed(exported, tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    config.pop("hidden_size")
    (folder / "config.json").write_text(json.dumps(config))
    assert refused("evaluate", folder, "--data", shards) == f"{folder}/config.json: has no hidden_size"
