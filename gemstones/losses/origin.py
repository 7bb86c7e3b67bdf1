"""How rows of the losses table came about, as questions and answers: the training behind them, and how they were measured.

The questions follow the second and third part of the checklist of Li, Kudugunta and Zettlemoyer (2025, arXiv 2502.18969).
Answers come from the rows and the study's config; of the rows of others, only what they published is known.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gemstones.losses.columns import COLUMNS
from gemstones.report import number
from gemstones.suite.recipe import scaling_depth

if TYPE_CHECKING:
    import pandas as pd

    from gemstones.study import Study

NOT_KNOWN = "not known"

# Questions about the training, and about the measured losses, whose answers differ by who trained the models.
TRAINING = {
    "corpus": "On which data are they trained, and do data repeat?",
    "tokenizer": "With which tokenizer and vocabulary?",
    "architecture": "What is the architecture, and what of it changes with scale?",
    "batch": "How large is a batch, and does it change with scale?",
    "learning_rate": "How is the learning rate chosen, and what is its schedule?",
    "optimizer": "Which optimiser trains the models, and with what settings?",
    "params": "How are parameters counted?",
    "tokens": "How are training tokens counted?",
    "flops": "How is compute counted?",
    "code": "Are code and checkpoints of the training open?",
}
MEASURED = {
    "metric": "What is measured, and on which data?",
    "modified": "Are measured losses smoothed, interpolated or averaged?",
}

COUNTED_FLOPS = (
    "FLOPs = tokens × FLOPs per token of a full context, forward and backward: attention with query-key products at half cost "
    "(causal) and its softmax, a backward pass of attention at 2.5 times the forward one, MLP, norms and LM head; no embedding "
    "look-up (Gemstones, Appendix G). GPU-hours = seconds per step × steps × devices / 3600"
)
AUTHORS = {
    "corpus": f"Dolma 1.7; repeats: {NOT_KNOWN}",
    "tokenizer": "GPT-NeoX",
    "decay": "not on norms, but on the final one",
    "cooldown": "10 % more tokens",
    "code": "code: a co-author's public fork of litgpt; checkpoints: on Hugging Face, by step",
    "modified": "no: as the authors released them",
}
# What their losses are the mean over, by the losses table's name of the set.
AUTHORS_SETS = {
    "dolma": "of a fixed held-out set of 100M tokens of Dolma 1.7",
    **{
        name: f"of documents of {title}, on which they were not trained; how many: {NOT_KNOWN}"
        for name, title in {"fineweb": "FineWeb", "fineweb_edu": "FineWeb-Edu", "dclm": "DCLM"}.items()
    },
}
# Points read off a figure of Hoffmann et al. (2022): most of what the checklist asks is not in the data.
HOFFMANN = {
    "corpus": f"MassiveText (Hoffmann et al., 2022); repeats: {NOT_KNOWN}",
    "params": "as in Figure 4 of Hoffmann et al. (2022)",
    "tokens": "FLOPs / (6 · params)",
    "flops": "as in Figure 4 of Hoffmann et al. (2022): FLOPs = 6 · params · tokens",
    "metric": "training loss, read off Figure 4 of Hoffmann et al. (2022) by Epoch AI (Besiroglu et al., arXiv 2404.10102)",
    "modified": f"{NOT_KNOWN}; read off a figure, which rounds",
}


def training(rows: pd.DataFrame, study: Study | None = None) -> dict[str, str]:
    """Questions about the training behind the rows, with their answers.

    Parameters
    ----------
    rows : of the losses table, or of any table with some of its columns.
    study : the config that they belong to; without it, little is known.
    """
    return {
        "How many models are trained, and of which sizes?": _models(rows),
        "How long is each trained?": _lengths(rows),
        **_by_suite(rows, study, TRAINING),
    }


def measured(rows: pd.DataFrame, study: Study | None = None) -> dict[str, str]:
    """Questions about the losses that the rows hold, with their answers; parameters as in :func:`training`."""
    return {
        **_by_suite(rows, study, MEASURED),
        "How many losses of each model are there?": _per_run(rows),
        "Are they of final or intermediate checkpoints?": _checkpoints(rows, study),
    }


def _by_suite(rows: pd.DataFrame, study: Study | None, questions: dict[str, str]) -> dict[str, str]:
    suites = sorted(rows["suite"].dropna().unique()) if "suite" in rows else []
    answers = {suite: _answers(suite, rows[rows["suite"] == suite], study) for suite in suites}
    found = {}
    for key, question in questions.items():
        texts = {suite: known.get(key, NOT_KNOWN) for suite, known in answers.items()}
        same = set(texts.values()) or {NOT_KNOWN}
        found[question] = same.pop() if len(same) == 1 else "\n".join(f"{s}: {text}" for s, text in texts.items())
    return found


def _answers(suite: str, rows: pd.DataFrame, study: Study | None) -> dict[str, str]:
    if suite == "hoffmann":
        return HOFFMANN
    if study is None or suite not in ("gemstones", study.study):
        return {}
    # The config describes the authors' suite and recipe where it takes their losses.
    own, shared, recipe = suite == study.study, study.suite, study.recipe
    tokens_per_step = recipe.batch_size * shared.context_length
    known = _own(study) if own else {**AUTHORS, "metric": _authors_sets(rows)}
    patched = ", ".join(recipe.patched) if recipe.patched is not None else f"w/d > {recipe.patch_above_aspect_ratio:g}"
    return {
        **known,
        "tokenizer": f"{known['tokenizer']}, {shared.vocabulary_size:,} tokens",
        "architecture": (
            f"decoder-only transformer: head size {shared.head_size}, two query heads a KV group, gated MLP of 4 widths, RMSNorm, "
            f"RoPE, untied embedding and LM head, no biases, context {shared.context_length}; width and depth vary, width/depth "
            f"{_span(rows, 'width', per='depth')}"
        ),
        "batch": f"{recipe.batch_size} sequences of {shared.context_length} = {tokens_per_step:,} tokens for all models",
        "learning_rate": (
            f"by rule, not tuned for each model: peak = b / (width · √depth), b = {_lr_base(rows, study)}; peaks "
            f"{_span(rows, 'lr')}. ⌈width/100⌉ for depth where patched ({patched or 'none'}). Linear warm-up over "
            f"{number(recipe.warmup_tokens)} tokens, then constant; cooldowns: linear to 0 over {known['cooldown']}"
        ),
        "optimizer": (
            f"AdamW, β {recipe.beta1:g} and {recipe.beta2:g}, ε {recipe.epsilon:g}, weight decay {recipe.weight_decay:g} "
            f"({known['decay']}), gradients clipped at norm {recipe.gradient_clipping:g}, {recipe.precision}"
        ),
        "params": "; ".join(f"{name}: {COLUMNS[name].description}" for name in COLUMNS if name.startswith("params")),
        "tokens": f"steps × batch × context = steps × {tokens_per_step:,}, with those of warm-up",
        "flops": COUNTED_FLOPS,
        "metric": f"{COLUMNS['loss'].description}, {known['metric']}",
    }


def _authors_sets(rows: pd.DataFrame) -> str:
    sets = rows["validation_set"].unique() if "validation_set" in rows else ["dolma"]
    return "; ".join(AUTHORS_SETS.get(name, NOT_KNOWN) for name in sorted(sets))


def _own(study: Study) -> dict[str, str]:
    data, runs = study.data, study.runs
    fractions = {runs.cooldown.fraction} if runs and runs.cooldown else set()
    fractions |= {*runs.cooldown_ablation.fractions} if runs and runs.cooldown_ablation else set()
    percents = ", ".join(f"{100 * fraction:g}" for fraction in sorted(fractions))
    return {
        "corpus": (
            f"{data.corpus}; all runs see the same windows in the same order, and none again before all were seen (the size "
            "of the training split: training/data/manifest.json)"
        ),
        "tokenizer": data.tokenizer or "byte-level BPE, trained on the training split",
        "decay": "not on norms",
        "cooldown": f"{percents} % more steps" if percents else "no steps: there are none",
        "code": "code: this project, gemstones/training; checkpoints: beside the runs, under training/",
        "metric": (
            f"of the first {data.validation_tokens:,} tokens of documents held out by the hash of their ids "
            f"({100 * data.validation_fraction:g} % of all)"
        ),
        "modified": "no: as evaluated; of an evaluation that a resumed run repeated, the later one counts",
    }


def _models(rows: pd.DataFrame) -> str:
    if "run" not in rows or rows["run"].isna().any():
        models = f"{NOT_KNOWN}: not every row names a run"
    else:
        kinds = rows["run"].groupby(rows["phase"], dropna=False).nunique() if "phase" in rows else {}
        by_phase = ", ".join(f"{count} {phase}" for phase, count in kinds.items())
        models = f"{rows['run'].nunique()} runs" + (f" ({by_phase})" if len(kinds) > 1 else "")
        models += (
            f" of {len(rows[['width', 'depth']].drop_duplicates())} shapes" if {"width", "depth"} <= {*rows} else ""
        )
    sizes = [f"{name} {_span(rows, name)}" for name in ("params", "width", "depth") if name in rows]
    return "; ".join([models, *sizes])


def _lengths(rows: pd.DataFrame) -> str:
    if "tokens" not in rows or "run" not in rows or rows["run"].isna().any():
        return f"{NOT_KNOWN}; tokens of the rows {_span(rows, 'tokens')}"
    last = rows.groupby("run")["tokens"].max().to_frame()
    text = f"to {_span(last, 'tokens')} tokens, by the rows' last checkpoints"
    return text + f"; {_span(rows, 'tokens', per='params')} tokens a parameter over all rows"


def _per_run(rows: pd.DataFrame) -> str:
    if "run" not in rows or rows["run"].isna().any():
        return f"{len(rows)} rows, not all of them of known runs"
    text = f"{len(rows)} rows, {_span(rows.groupby('run').size().to_frame('n'), 'n')} a run"
    return text + (f", steps {_span(rows, 'step')}" if "step" in rows else "")


def _checkpoints(rows: pd.DataFrame, study: Study | None) -> str:
    if not {"phase", "step", "anchor", "tokens"} <= {*rows} or rows["phase"].isna().any():
        return NOT_KNOWN
    cooldown = rows[rows["anchor"].notna()]
    ends = int((cooldown["step"] > cooldown["anchor"]).sum())
    kinds = {
        "along runs at constant learning rate, intermediate and final": len(rows) - len(cooldown),
        "where cooldowns branch off, at constant learning rate": len(cooldown) - ends,
        "at the end of cooldowns, at learning rate 0": ends,
    }
    text = "; ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    if study is None:
        return text
    return f"{text}; {int((rows['tokens'] < study.recipe.warmup_tokens).sum())} within the warm-up"


def _lr_base(rows: pd.DataFrame, study: Study) -> str:
    """The constants b of the rows' learning rates, from the rates themselves: an ablation has its own."""
    shapes = rows[["width", "depth", "lr"]].dropna().drop_duplicates().itertuples(index=False)
    found = {
        float(f"{lr * w * math.sqrt(scaling_depth(f'{int(w)}x{int(d)}', study.recipe)):.6g}") for w, d, lr in shapes
    }
    return " and ".join(f"{b:g}" for b in sorted(found)) or NOT_KNOWN


def _span(rows: pd.DataFrame, name: str, per: str | None = None) -> str:
    """Smallest to largest value of a column, or of its ratio to another."""
    if name not in rows or (per and per not in rows):
        return NOT_KNOWN
    values = rows[[name]].to_numpy(float, na_value=np.nan)
    if per:
        values = values / rows[[per]].to_numpy(float, na_value=np.nan)
    known = values[np.isfinite(values)]
    if not len(known):
        return NOT_KNOWN
    low, high = number(known.min()), number(known.max())
    return low if low == high else f"{low} to {high}"
