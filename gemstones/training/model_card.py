"""The model card of an exported checkpoint: what the model is, every number of its run, and its loss curve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from gemstones import files
from gemstones.figures.axes import human, log_axis, loss_axis
from gemstones.figures.style import GREY, PALETTE, RC, figure
from gemstones.suite import counting
from gemstones.suite.runs import Run
from gemstones.training.metrics import losses

if TYPE_CHECKING:
    from gemstones.training.export import Trained

CURVE = "loss_curve.png"
PAPER = "[Gemstones](https://arxiv.org/abs/2502.06857)"
LOADING = """import transformers

model = transformers.AutoModelForCausalLM.from_pretrained(".")"""
LOADING_TOKENIZER = """
tokenizer = transformers.AutoTokenizer.from_pretrained(".")"""


@dataclass(frozen=True)
class Card:
    """The text of a `README.md` and the picture that it shows."""

    text: str
    curve: Figure

    def write(self, folder: Path) -> None:
        with mpl.rc_context(RC):
            files.write_with(lambda path: self.curve.savefig(path, format="png"), folder / CURVE)
        files.write_text(self.text, folder / "README.md")


def describe(trained: Trained, state: dict[str, Any], corpus: str | None = None) -> Card:
    """The card of a checkpoint.

    Parameters
    ----------
    state : the checkpoint; it knows the roll-backs of its run.
    corpus : what the model was trained on, where that is known; then a tokenizer goes with it.

    Raises
    ------
    UserError
        If the run's metrics are not there.
    """
    curves = _curves(trained)
    return Card(_text(trained, state, curves, corpus), draw(curves, trained.run))


def draw(curves: dict[str, dict[int, float]], run: Run) -> Figure:
    """Training and validation loss in nats per token, by step, over the tokens seen."""
    with mpl.rc_context(RC):
        drawn = figure(3.2, width=5.0)
        axes = drawn.subplots()
        looks: dict[str, dict[str, Any]] = {
            "train": {"color": GREY, "linewidth": 0.5, "alpha": 0.6, "label": "training"},
            "validation": {"color": PALETTE[0], "marker": "o", "label": "validation"},
        }
        for kind, look in looks.items():
            steps = sorted(step for step in curves[kind] if step > 0)
            axes.plot([step * run.tokens_per_step for step in steps], [curves[kind][step] for step in steps], **look)
        log_axis(axes, "x")
        loss_axis(axes, "loss (nats/token)")
        axes.set_xlabel("training tokens")
        axes.legend()
        return drawn


def _curves(trained: Trained) -> dict[str, dict[int, float]]:
    """Losses up to the checkpoint; those of the run that a cooldown branches from come before its own."""
    *before, own = trained.metrics
    curves: dict[str, dict[int, float]] = {"train": {}, "validation": {}}
    for path, last in [*((path, trained.run.anchor or 0) for path in before if path.exists()), (own, trained.step)]:
        for kind, curve in losses(path).items():
            curves[kind] |= {step: loss for step, loss in curve.items() if step <= last}
    return curves


def _text(trained: Trained, state: dict[str, Any], curves: dict[str, dict[int, float]], corpus: str | None) -> str:
    run, step, name = trained.run, trained.step, trained.repository
    architecture = counting.Architecture(run.head_size, run.vocabulary_size, run.context_length)
    shape = run.width, run.depth, architecture
    params, tokens = counting.params(*shape), step * run.tokens_per_step
    flops_per_token = counting.flops_per_token(*shape)
    evaluated = max(curves["validation"])
    if run.is_cooldown:
        kind = (
            f"branched from `Gemstone-{run.shape}` at step {run.anchor}, with the learning rate going linearly to "
            f"zero at step {run.steps} (`_{run.phase}`)"
        )
    elif run.phase == "replicate":
        kind = f"trained as the main run of its shape, from seed {run.seed}"
    elif run.phase == "main":
        kind = "trained with a constant learning rate after a linear warm-up"
    else:
        kind = f"trained as the main run of its shape would be, but with another learning rate (`_{run.phase}`)"
    results = {
        "parameters": f"{params:,}",
        "parameters without input embedding": f"{counting.params_no_input_embedding(*shape):,}",
        "parameters without embeddings": f"{counting.params_no_embeddings(*shape):,}",
        "step": f"{step:,}",
        "training tokens": f"{tokens:,}",
        "FLOPs per token, forward and backward": f"{flops_per_token:.6g}",
        "training FLOPs": f"{flops_per_token * tokens:.6g}",
        f"validation loss at step {evaluated:,}, nats per token": f"{curves['validation'][evaluated]:.4f}",
    }
    origin = {
        "run": trained.content["run"],
        "key of the run": trained.content["key"],
        "SHA-256 of the checkpoint": trained.content["checkpoint"]["sha256"],
        "SHA-256 of the training and validation tokens": trained.content["data_sha256"],
        "version of gemstones that trained it": trained.content["gemstones_version"],
    }
    if corpus is not None:
        origin = {"corpus": f"`{corpus}`", **origin}
    recipe = {f"`{key}`": _plain(value) for key, value in run.model_dump(mode="json", exclude={"name"}).items()}
    if state.get("roll_backs"):  # earlier versions knew none
        recipe["roll-backs"] = _plain(state["roll_backs"])
        recipe["batches skipped by them"] = _plain(state["skipped"])
        recipe["their factor on the learning rate"] = _plain(state["lr_factor"])
    loading = LOADING + (LOADING_TOKENIZER if corpus is not None else "")
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- causal-lm
- gemstones
- scaling-laws
---

# {name}, {trained.revision}

A language model of width {run.width} and depth {run.depth} with {human(params)} parameters after {human(tokens)} tokens, {kind}.
It is one of a family over width and depth for the study of scaling laws, after {PAPER}: a base model that follows no instructions.

{_table("", results)}

![Training and validation loss over training tokens]({CURVE})

## How to load it

```python
{loading}
```

in this folder, or give the repository's name and `revision="{trained.revision}"` in its place. The model is a Llama with tanh-GELU
(`LlamaForCausalLM`) in float32, with contexts of {run.context_length:,} tokens; what the trained model does beyond that is folded into the
weights, and logits are the same.

## Recipe

{_table("setting", recipe)}

Sizes are in sequences (`batch_size`) and tokens; a step has {run.tokens_per_step:,} tokens. `lr` is the peak learning rate.

## Origin

{_table("", origin)}
"""


def _table(title: str, rows: dict[str, str]) -> str:
    return "\n".join([f"| {title} | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _plain(value: Any) -> str:
    """A setting as text: exact, with separators of thousands in whole numbers."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
