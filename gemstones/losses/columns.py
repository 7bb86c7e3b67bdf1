"""Columns of the losses table as plain data, so that a config can be checked without loading a table library."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    dtype: str
    description: str
    nullable: bool = False


# Rows taken from papers have neither run nor shape nor step, hence the nullable columns.
COLUMNS = {
    "suite": Column("string", "who trained it: a study's name, gemstones (the authors), hoffmann"),
    "run": Column("string", "run name, such as 1024x28-cooldown-2385", nullable=True),
    "phase": Column(
        "string", "main, replicate, lr_ablation, lr_transfer, cooldown or cooldown_ablation", nullable=True
    ),
    "parent": Column("string", "main run from which a cooldown branches", nullable=True),
    "anchor": Column("Int64", "step at which a cooldown branches", nullable=True),
    "seed": Column("Int64", "seed of initialisation and order of data", nullable=True),
    "width": Column("Int64", "model width", nullable=True),
    "depth": Column("Int64", "number of layers", nullable=True),
    "heads": Column("Int64", "query heads", nullable=True),
    "params": Column("float64", "all parameters"),
    "params_no_input_embedding": Column("float64", "parameters without the input embedding", nullable=True),
    "params_no_embeddings": Column("float64", "parameters without input embedding and LM head", nullable=True),
    "flops_per_token": Column("float64", "FLOPs per token, forward and backward"),
    "step": Column("Int64", "optimizer steps taken", nullable=True),
    "tokens": Column("float64", "training tokens seen"),
    "flops": Column("float64", "training FLOPs: flops_per_token * tokens"),
    "lr": Column("float64", "peak learning rate", nullable=True),
    "num_nodes": Column("Int64", "nodes used", nullable=True),
    "gpus": Column("Int64", "devices used; a node of Frontier has 8 GCDs", nullable=True),
    "seconds_per_step": Column("float64", "seconds per optimizer step", nullable=True),
    "gpu_hours": Column("float64", "seconds_per_step * step * gpus / 3600", nullable=True),
    "validation_set": Column("string", "held-out set the loss was measured on"),
    "loss": Column("float64", "mean cross-entropy in nats per token"),
}
KEY = ["suite", "run", "step", "validation_set"]
PHASES = ["main", "replicate", "lr_ablation", "lr_transfer", "cooldown", "cooldown_ablation"]
