"""How much memory a training step takes on a device, by strategy: what torch allocates at its peak, before anything is run.

Counted from what each strategy keeps (see `gemstones.training.parallel`): weights and AdamW's moments always, 4 + 8 bytes a parameter;
as a step goes on, first every layer's activations and the head's logits, at last the gradients. Kernels' own scratch, the libraries
themselves (some 300 MB on a CPU) and what an allocator wastes come on top.
"""

from __future__ import annotations

import math

from gemstones.cluster.throughput import speed
from gemstones.errors import UserError
from gemstones.study import Study, axonn_split
from gemstones.suite import counting
from gemstones.suite.counting import MLP_RATIO, Architecture
from gemstones.suite.runs import Run, all_runs

FP32, BF16 = 4, 2
MOMENTS = 2 * FP32


def planned_processes(study: Study, run: Run) -> int:
    """How many processes share a run's steps: as many as the config says, or one for each device that srun starts them on."""
    if study.training.strategy == "single" or study.training.processes > 1:
        return study.training.processes
    return speed(study, run).nodes * study.plan.gpus_per_node


def check_devices(study: Study) -> None:
    """Fail early on steps that cannot be shared as the config wants it; raises UserError with the key at fault."""
    strategy = study.training.strategy
    for run in all_runs(study):
        processes = planned_processes(study, run)
        if strategy == "single" and processes > 1:
            raise UserError(
                f"training.processes: strategy 'single' is one process, not {processes}; choose another training.strategy"
            )
        if strategy != "single" and processes == 1:
            raise UserError(
                f"training.strategy: '{strategy}' shares each step out among processes, and {run.name} has one; "
                "set training.processes, or plan.gpus_per_node"
            )
        together = math.prod(axonn_split(strategy) or (1,))
        if processes % together:
            raise UserError(
                f"training.strategy: '{strategy}' takes a multiple of {together} processes, and {run.name} has {processes}"
            )
        if strategy != "tp" and run.batch_size % processes:
            raise UserError(
                f"recipe.batch_size: {run.batch_size} sequences cannot be split evenly over the {processes} processes of {run.name}"
            )
        if strategy == "tp" and (run.width % processes or run.vocabulary_size % processes):
            raise UserError(
                f"training.strategy: 'tp' splits width and vocabulary of {run.name} ({run.width} and {run.vocabulary_size}) "
                f"evenly, which {processes} processes cannot"
            )
    _check_memory(study)


def planned_memory_bytes(study: Study, run: Run, micro_batch_size: int | None = None) -> float:
    """Bytes of each device at the peak of a run's steps, on the planned nodes with the config's strategy.

    Parameters
    ----------
    micro_batch_size : instead of the config's.
    """
    training, processes = study.training, planned_processes(study, run)
    share = -(-run.batch_size // (1 if training.strategy == "tp" else processes))
    sequences = min(micro_batch_size or training.micro_batch_size or share, share)
    return step_memory_bytes(
        run.width,
        run.depth,
        Architecture(run.head_size, run.vocabulary_size, run.context_length),
        sequences=sequences,
        low_precision=run.precision == "bf16-mixed",
        strategy=training.strategy,
        processes=processes,
        accumulates=sequences < share,
    )


def _check_memory(study: Study) -> None:
    """Raises UserError if a run's steps do not fit into `plan.gpu_memory_gb`, naming the one that takes most."""
    limit, runs = study.plan.gpu_memory_gb, all_runs(study)
    if limit is None or not runs:
        return
    largest = max(runs, key=lambda run: planned_memory_bytes(study, run))
    needed = planned_memory_bytes(study, largest)
    if needed > 1e9 * limit:
        least = max(planned_memory_bytes(study, run, micro_batch_size=1) for run in runs)
        raise UserError(
            f"plan.gpu_memory_gb: a step of {largest.name} takes {needed / 1e9:.3g} GB of each device, of {limit:g}; "
            + (
                f"set training.micro_batch_size lower (at 1 no run takes more than {least / 1e9:.3g} GB)"
                if least <= 1e9 * limit
                else "choose another training.strategy, or more nodes"
            )
        )


def step_memory_bytes(
    width: int,
    depth: int,
    architecture: Architecture,
    *,
    sequences: int,
    low_precision: bool,
    strategy: str = "single",
    processes: int = 1,
    accumulates: bool = False,
) -> float:
    """Bytes that torch has allocated on one device at the peak of a training step.

    Parameters
    ----------
    sequences : that the process takes at a time.
    low_precision : matrix products in bfloat16, all else in float32.
    strategy, processes : as in the config's section `training`; how many processes share a step.
    accumulates : whether a step is the sum of several such parts, so that gradients are there from the second on.
    """
    w, v, tokens = width, architecture.vocabulary_size, sequences * architecture.context_length
    low = BF16 if low_precision else FP32
    split = axonn_split(strategy)
    rows, columns, parts = split or (1, 1, 1)
    tensor = processes if strategy == "tp" else 1

    # Parameters: the embedding, and as large the head; the matrices of a block; the norms.
    table, norms = v * w, (2 * depth + 1) * w
    block = (counting.params_no_embeddings(w, depth, architecture) - norms) // depth
    matrices = depth * block + table
    held: float
    if split:
        held = table + matrices / (rows * columns * parts)
    else:
        held = (table + matrices) / (processes if strategy in ("fsdp2", "tp") else 1)
    held += norms / (processes if strategy == "fsdp2" else 1)
    # FSDP gathers the two tables at the start of a step and keeps them, and a block as it is needed, with the next one.
    gathered, passing = (2 * table, 2 * block) if strategy == "fsdp2" else (0, 0)
    # Autocast keeps the matrices in bfloat16 for the backward pass; AxoNN makes them anew.
    copies = BF16 * matrices / tensor if low_precision and not split else 0.0

    # Bytes a token that each layer keeps for its backward pass: input and normalised input of its norms; what enters the matrix
    # products (autocast makes a copy for each); queries, keys and values of all heads and what attention gives; the MLP's.
    inner = MLP_RATIO * w * low
    mlp: float
    if split:
        inputs, mlp = rows * (3 * FP32 + low) * w, (1 + 2 * columns + rows) * inner
    else:
        inputs, mlp = (4 * BF16 if low_precision else 3 * FP32) * w, 4 * inner / tensor
    layers = depth * (4 * FP32 * w + inputs + 4 * low * w + mlp) * tokens
    last_norm = 3 * FP32 * w * tokens

    fixed = (FP32 + MOMENTS) * held
    gradients = FP32 * held
    there = gradients if accumulates or strategy == "ddp" else 0.0
    of_head = FP32 * table / (tensor * rows * columns * parts)
    during = fixed + copies + FP32 * gathered + layers
    peaks = {
        # The logits, and in float32 the logarithm of their softmax, its gradient and theirs.
        "loss": during + there + last_norm + (low + 3 * FP32) * v * tokens,
        # As much as its MLP keeps comes and goes in a layer's backward pass.
        "last layer": during + max(there, of_head) + FP32 * passing + (mlp + 3 * FP32 * w) * tokens,
        # FSDP: the gathered tables' gradients, and a copy of them that is sent.
        "gradients": fixed + gradients + 3 * FP32 * gathered + BF16 * FP32 * w * tokens,
    }
    if split:
        # The head's weights are gathered from all parts, and so are its gradients before they are shared out.
        tile = table / (rows * columns)
        of_tile = FP32 + (BF16 if low_precision else 0) + low + low / parts
        peaks["head"] = during + there + last_norm + (columns + rows) * low * v * tokens + of_tile * tile
    return max(peaks.values())
