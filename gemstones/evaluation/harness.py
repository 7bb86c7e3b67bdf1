"""Accuracies on benchmarks by lm-eval, in an environment of its own, on checkpoints as they are exported."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gemstones.errors import UserError
from gemstones.losses import benchmarks

log = logging.getLogger(__name__)

# The table's names of tasks that have another one in lm-eval.
NAMES = {"arc_challenge": "arc:challenge", "arc_easy": "arc:easy", "social_iqa": "siqa"}
# Of a result, in the order of preference: the likelihood of an answer divided by its length, or as it is.
METRICS = ("acc_norm", "acc")
# What a result says of the machine, and paths.
LEFT_OUT = ("pretty_env_info", "git_hash", "upper_git_hash", "model_name", "model_name_sanitized")


def evaluate_checkpoint(
    manifest: Path, data: Path, command: str, tasks: Sequence[str], task_folder: str | None = None
) -> dict[str, Any]:
    """Results of lm-eval for a run's checkpoint, with the run's name and step.

    Parameters
    ----------
    manifest : of a training job.
    data : manifest of the shards, whose tokenizer the model takes.
    command : lm-eval's program.
    tasks, task_folder : as in the config's section `evaluation`.
    """
    from gemstones.training.export import export, read_trained

    trained = read_trained(manifest)
    with tempfile.TemporaryDirectory() as folder:
        model = export(manifest, Path(folder), data)
        found = run_lm_eval(command, model, tasks, task_folder)
    return {"run": trained.run.name, "step": trained.step, **found}


def run_lm_eval(command: str, model: Path, tasks: Sequence[str], task_folder: str | None = None) -> dict[str, Any]:
    """What lm-eval writes of a model's folder; its output goes to the log.

    Raises
    ------
    UserError
        If the program is not there or fails.
    """
    program = shutil.which(command)
    if program is None:
        raise UserError(f"evaluation.lm_eval: '{command}' is not there; make eval installs it, or name another one")
    with tempfile.TemporaryDirectory() as folder:
        called = [
            program, "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--tasks", ",".join(tasks),
            "--batch_size", "8", "--output_path", folder, *(["--include_path", task_folder] if task_folder else []),
        ]  # fmt: skip
        done = subprocess.run(called, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        log.info("%s\n%s", " ".join(called), done.stdout)
        written = sorted(Path(folder).rglob("results_*.json"))
        if done.returncode or not written:
            lines = done.stdout.strip().splitlines() or [f"exit status {done.returncode}"]
            # Progress bars may come after what went wrong.
            said = [line for line in lines if "Error" in line] or lines
            raise UserError(f"lm-eval failed: {said[-1].strip()}")
        content: dict[str, Any] = json.loads(written[-1].read_text())
    return {key: value for key, value in content.items() if key not in LEFT_OUT}


def benchmark_rows(results: Iterable[Mapping[str, Any]], tasks: Sequence[str], trained: pd.DataFrame) -> pd.DataFrame:
    """Results of lm-eval as the table of benchmarks (see `losses.benchmarks`).

    Parameters
    ----------
    results : of :func:`evaluate_checkpoint`.
    tasks : that were asked for; parts of a group such as mmlu give no rows of their own.
    trained : the losses table of the study's runs, for tokens, FLOPs and parameters.

    Raises
    ------
    UserError
        If a task has no accuracy.
    """
    known = trained.drop_duplicates(["run", "step"]).set_index(["run", "step"])
    rows = []
    for result in results:
        run, step = result["run"], result["step"]
        of_run = known.loc[(run, step), ["suite", "tokens", "flops", "params", "width", "depth"]].to_dict()
        for task in tasks:
            accuracy, error = _accuracy(result, task)
            name = NAMES.get(task, task)
            rows.append(
                {
                    **of_run,
                    "run": run,
                    "step": step,
                    "task": name,
                    "accuracy": accuracy,
                    "standard_error": error,
                    "random_chance": benchmarks.RANDOM_CHANCE.get(name),
                    "source": f"lm-eval {result['lm_eval_version']}",
                }
            )
    return benchmarks.check(pd.DataFrame(rows), "the results of lm-eval")


def _accuracy(result: Mapping[str, Any], task: str) -> tuple[float, float | None]:
    of_task = result["results"].get(task, {})
    for metric in METRICS:
        for key, value in of_task.items():
            name, _, filtered = key.partition(",")
            if name == metric:
                error = of_task.get(f"{metric}_stderr,{filtered}")
                return float(value), None if error in (None, "N/A") else float(error)
    has = f"has {', '.join(key for key in of_task if ',' in key)}" if of_task else "is not among the results"
    raise UserError(f"evaluation.tasks: {task} of run {result['run']} {has}; wanted: a task with acc or acc_norm")
