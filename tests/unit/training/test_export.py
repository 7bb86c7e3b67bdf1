"""Exported checkpoints are Llama models that predict what the trained ones did."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch.nn import functional
from typer.testing import CliRunner

from gemstones import files
from gemstones.cli import app
from gemstones.suite import counting
from gemstones.suite.runs import Run
from gemstones.training import evaluate, model_card
from gemstones.training.data import Tokens
from gemstones.training.export import export, llama_config, llama_weights, read_trained
from gemstones.training.model import build_model

from .conftest import Train, make_cooldown, make_job, make_run

# Four query heads with two key-value heads, three with one, two with one.
SHAPES = [(64, 2), (48, 3), (32, 1)]
Weights = dict[str, torch.Tensor]


class Offset(Run):
    norm_offset: bool = True


def llama(config: dict[str, Any], weights: Weights, tokens: torch.Tensor) -> torch.Tensor:
    """(batch, context, vocabulary) logits of Llama (Touvron et al. 2023) for (batch, context) tokens, from its equations."""
    heads, groups, size = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    length = tokens.shape[1]
    frequencies = config["rope_theta"] ** (-torch.arange(0, size, 2) / size)
    turns = torch.polar(torch.ones(length, size // 2), torch.outer(torch.arange(length), frequencies))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]).sqrt() * weights[f"{name}.weight"]

    def project(x: torch.Tensor, name: str) -> torch.Tensor:
        return torch.einsum("bti,oi->bto", x, weights[f"{name}.weight"])

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (-1, size))  # (batch, context, heads, head size)

    def rotate(x: torch.Tensor) -> torch.Tensor:
        """The first half of a head is the real part, the second half the imaginary one."""
        turned = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * turns[:, None]
        return torch.cat([turned.real, turned.imag], -1)

    x = weights["model.embed_tokens.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        block = f"model.layers.{layer}"
        seen = norm(x, f"{block}.input_layernorm")
        q, k, v = (split(project(seen, f"{block}.self_attn.{name}_proj")) for name in "qkv")
        q, k = rotate(q), rotate(k)
        mixed = []
        for head in range(heads):
            group = head * groups // heads
            scores = q[:, :, head] @ k[:, :, group].transpose(1, 2) / math.sqrt(size)
            future = torch.ones(length, length).triu(1).bool()
            mixed.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v[:, :, group])
        x = x + project(torch.cat(mixed, -1), f"{block}.self_attn.o_proj")
        seen = norm(x, f"{block}.post_attention_layernorm")
        gate = functional.gelu(project(seen, f"{block}.mlp.gate_proj"), approximate="tanh")
        x = x + project(gate * project(seen, f"{block}.mlp.up_proj"), f"{block}.mlp.down_proj")
    return project(norm(x, "model.norm"), "lm_head")


def command(manifest: Path, output: Path, *options: Any) -> list[str]:
    return ["export", str(manifest), "--output", str(output), *map(str, options)]


@pytest.mark.parametrize(("width", "depth"), SHAPES)
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("scale_embeddings", [True, False])
def test_logits_are_those_of_the_trained_model(width: int, depth: int, offset: bool, scale_embeddings: bool) -> None:
    changes = {"name": f"{width}x{depth}", "width": width, "depth": depth, "scale_embeddings": scale_embeddings}
    run = make_run(**changes)
    model = build_model(run)
    run = Offset.model_validate({**run.model_dump(), "norm_offset": True}) if offset else run
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # norms too, which would start at one
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
        for module in model.modules():
            if hasattr(module, "add_unit_offset"):
                module.add_unit_offset = offset
        tokens = torch.randint(0, run.vocabulary_size, (3, run.context_length), generator=generator)
        due = model(tokens)
        weights = llama_weights(dict(model.named_parameters()), run)
        found = llama(llama_config(run), weights, tokens)
    assert due.std() > 0.1
    assert (found - due).abs().max() <= 1e-5 * due.abs().max()


def test_a_folder_has_all_that_transformers_needs(train: Train, shards: Path, tmp_path: Path) -> None:
    manifest = train(tmp_path / "training", 10)
    result = CliRunner().invoke(app, command(manifest, tmp_path / "out", "--data", shards))
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "Gemstone-32x1" / "step_00000010"
    assert result.stdout == f"{folder}\n"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "loss_curve.png",
    }  # fmt: skip
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".")]
    assert {oct(path.stat().st_mode & 0o444) for path in (folder, *folder.iterdir())} == {"0o444"}

    run, content = make_run(), json.loads(manifest.read_text())
    config, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    block = "model.layers.0"
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {
        "model.embed_tokens.weight": (300, 32),
        f"{block}.input_layernorm.weight": (32,),
        f"{block}.self_attn.q_proj.weight": (32, 32),
        f"{block}.self_attn.k_proj.weight": (16, 32),
        f"{block}.self_attn.v_proj.weight": (16, 32),
        f"{block}.self_attn.o_proj.weight": (32, 32),
        f"{block}.post_attention_layernorm.weight": (32,),
        f"{block}.mlp.gate_proj.weight": (128, 32),
        f"{block}.mlp.up_proj.weight": (128, 32),
        f"{block}.mlp.down_proj.weight": (32, 128),
        "model.norm.weight": (32,),
        "lm_head.weight": (300, 32),
    }
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses files that do not say so
    trained = torch.load(content["checkpoint"]["path"], weights_only=True)["model"]
    written = llama_weights(trained, run)
    assert all(torch.equal(weights[name], weight) for name, weight in written.items())

    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["gemstones"]["specification"] == run.model_dump(mode="json")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert config["eos_token_id"] == tokenizer.token_to_id("<|endoftext|>")
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "<|endoftext|>"
    assert (folder / "loss_curve.png").read_bytes().startswith(b"\x89PNG")

    # What the folder's model loses on the held-out tokens is what was recorded in training.
    numbers = range(run.validation_tokens // run.context_length)
    held_out = evaluate.windows(Tokens(shards, "validation"), numbers, run.context_length)
    loss = functional.cross_entropy(llama(config, weights, held_out[:, :-1]).flatten(0, 1), held_out[:, 1:].flatten())
    assert loss.item() == pytest.approx(content["validation_loss"], abs=1e-5)


def test_the_card_has_every_number_of_the_run(train: Train, shards: Path, tmp_path: Path) -> None:
    manifest = train(tmp_path / "training", 10)
    card = (export(manifest, tmp_path / "out", shards) / "README.md").read_text()
    head, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert "library_name: transformers" in head.splitlines()
    cells = dict(
        (part.strip() for part in line.strip("|").split("|")) for line in text.splitlines() if line.startswith("| ")
    )
    for setting in make_run().model_dump(exclude={"name"}):
        assert f"`{setting}`" in cells
    assert cells["`lr`"] == "0.01"
    assert cells["`parent`"] == "none"
    arch = counting.Architecture(16, 300, 16)
    assert cells["parameters"] == f"{counting.params(32, 1, arch):,}"
    assert cells["training tokens"] == "640"
    assert float(cells["training FLOPs"]) == pytest.approx(640 * counting.flops_per_token(32, 1, arch), rel=1e-5)
    content = json.loads(manifest.read_text())
    assert cells["validation loss at step 10, nats per token"] == f"{content['validation_loss']:.4f}"
    assert cells["SHA-256 of the checkpoint"] == content["checkpoint"]["sha256"]
    assert "AutoTokenizer" in card
    assert "roll-backs" not in cells
    rolled_back = {"roll_backs": 2, "skipped": 7, "lr_factor": 0.25}
    card = model_card.describe(read_trained(manifest), rolled_back).text
    assert "| roll-backs | 2 |\n| batches skipped by them | 7 |\n| their factor on the learning rate | 0.25 |" in card


def test_revisions_are_named_as_the_released_ones(train: Train, tmp_path: Path) -> None:
    main = train(tmp_path / "training", 10, make_job(checkpoints=(5,)))
    ablation = train(tmp_path / "training", 5, make_job(make_run(name="32x1-lr_ablation", phase="lr_ablation")))
    cooldown = train(tmp_path / "training", 8, make_job(make_cooldown(5, 8)), (main,))
    other = make_cooldown(5, 9).model_copy(update={"name": "32x1-cooldown-5-80", "phase": "cooldown_ablation"})
    others = [
        train(tmp_path / "training", 9, make_job(other), (main,)),
        train(tmp_path / "training", 5, make_job(make_run(name="32x1-lr-2", phase="lr_transfer", lr=0.02))),
    ]
    folders = [
        export(manifest, tmp_path / "out").relative_to(tmp_path / "out")
        for manifest in (main, ablation, cooldown, *others)
    ]
    assert [folder.as_posix() for folder in folders] == [
        "Gemstone-32x1/step_00000010",
        "Gemstone-32x1_lr_ablation/step_00000005",
        "Gemstone-32x1_cooldown/step_00000005_cooldown_00000008",
        # And those that were never released.
        "Gemstone-32x1_cooldown_ablation/step_00000005_cooldown_00000009",
        "Gemstone-32x1_lr_transfer_2/step_00000005",
    ]
    # Without the tokens' manifest there is no tokenizer, and nothing is said of one.
    assert not (tmp_path / "out" / folders[0] / "tokenizer.json").exists()
    assert "AutoTokenizer" not in (tmp_path / "out" / folders[0] / "README.md").read_text()
    config = json.loads((tmp_path / "out" / folders[0] / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (None, None)


def test_the_curve_of_a_cooldown_starts_with_its_parents(train: Train, tmp_path: Path) -> None:
    main = train(tmp_path / "training", 10, make_job(checkpoints=(5,)))
    cooldown = read_trained(train(tmp_path / "training", 8, make_job(make_cooldown(5, 8)), (main,)))
    curves = model_card._curves(cooldown)
    assert sorted(curves["train"]) == [1, 2, 3, 4, 5, 6, 7, 8]  # and not the parent's 9 and 10
    training, validation = model_card.draw(curves, cooldown.run).axes[0].lines
    assert list(training.get_xdata()) == [64 * step for step in range(1, 9)]
    assert list(validation.get_xdata()) == [64 * step for step in (5, 8)]
    assert list(validation.get_ydata()) == [curves["validation"][step] for step in (5, 8)]


def test_results_may_have_moved(train: Train, tmp_path: Path) -> None:
    """Manifests name files as the training job's working folder saw them."""
    manifest = train(tmp_path / "training", 5)
    (tmp_path / "training").rename(tmp_path / "moved")
    assert export(tmp_path / "moved" / manifest.relative_to(tmp_path / "training"), tmp_path / "out").is_dir()


def test_a_run_that_was_further_already_is_named_by_where_it_was(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "training", 10)
    manifest = train(tmp_path / "training", 7)
    assert export(manifest, tmp_path / "out").name == "step_00000010"
    assert "32x1 was at step 10 already" in caplog.text


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    train: Train, build: Any, shards: Path, tmp_path: Path
) -> None:
    manifest = train(tmp_path / "training", 5)
    (checkpoint,) = (tmp_path / "training").rglob("step-00000005.pt")
    (metrics,) = (tmp_path / "training").rglob("*.jsonl")
    other = build(tmp_path / "other", validation_fraction=0.3)
    output = tmp_path / "out"

    def refused(path: Path, *options: Any) -> str:
        result = CliRunner().invoke(app, command(path, output, *options))
        assert result.exit_code == 1, result.output
        assert result.stderr.count("\n") == 1
        assert not [path for path in output.rglob("*") if path.is_file()]
        return result.stderr

    assert refused(tmp_path / "no.json").endswith("no.json: cannot be read: No such file or directory\n")
    assert "not a manifest of a training job" in refused(shards)
    assert "32x1 was trained on other tokens" in refused(manifest, "--data", other)
    kept = metrics.read_bytes()
    metrics.write_bytes(b"")
    assert "no validation loss" in refused(manifest)
    metrics.write_bytes(kept)
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "damaged (its checksum is another one); train 32x1 to step 5 again" in refused(manifest)
    checkpoint.unlink()
    assert "the checkpoint is gone; train 32x1 to step 5 again" in refused(manifest)


def test_what_is_there_is_not_written_over(train: Train, tmp_path: Path) -> None:
    manifest = train(tmp_path / "training", 5)
    folder = export(manifest, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    result = CliRunner().invoke(app, command(manifest, tmp_path / "out"))
    assert (result.exit_code, result.stderr) == (
        1,
        f"error: {folder}: is there already; remove it to export it again\n",
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    shutil.rmtree(folder)
    export(manifest, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before  # equal to the last byte


def test_a_folder_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    def write() -> None:
        with files.atomic_folder(tmp_path / "whole") as folder:
            files.write_text("half", folder / "first")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert not list(tmp_path.iterdir())
