"""What is looked at before a study's jobs are submitted to a cluster."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from gemstones.cluster import jobs, slurm
from gemstones.errors import UserError
from gemstones.study import Study
from gemstones.suite.runs import Segment


def check_submission(
    study: Study,
    results: Path,
    *,
    account: str | None,
    most_jobs: int,
    training: Iterable[Segment],
    logs: Path | None,
) -> list[str]:
    """Refuse what would fail on the cluster or cost more than the budget; gives lines that are worth a warning.

    Parameters
    ----------
    results : `results/<study>`.
    account : as the profile names it, with variables of the environment; None if it names none.
    most_jobs : that will be in the queue at the same time.
    training : the training jobs among those to be submitted.
    logs : Slurm's logs; None where it is another kind of cluster.

    Raises
    ------
    UserError
        If the account's variable is not set, there is no Slurm, its logs go elsewhere, jobs of an earlier Snakemake wait or do
        what nobody takes over, the queue takes fewer jobs, or plan.budget_node_hours does not suffice.
    """
    if account is not None:
        said = os.path.expandvars(account)
        if "$" in said or not said.strip():
            name = account.strip("${}")
            raise UserError(f"{name}: not set; say which account is charged, as in `export {name}=abc123`")
    if logs and shutil.which("sbatch") is None:
        raise UserError("sbatch: not found; this profile submits to Slurm, so start it where jobs are submitted")
    folder = jobs.log_folder(results)
    if logs and logs.resolve() != folder.resolve():
        raise UserError(
            f"--slurm-logdir: {logs} is not the place of this study; say --slurm-logdir {folder}, by which its jobs are known"
        )
    warnings = []
    queue = _queue()
    left = jobs.of_study(queue, results)
    training_now = [job for job, what in left if job.running and what and what.rule.startswith("train_")]
    if others := [job.job_id for job, _ in left if job not in training_now]:
        raise UserError(
            f"{len(others)} jobs of an earlier Snakemake are still there, and would do again what is submitted now; end them "
            f"and start again: scancel {' '.join(others)}"
        )
    if training_now:
        warnings.append(
            f"{len(training_now)} training jobs of an earlier Snakemake are still at work; each saves and stops when another "
            f"takes it over. To end all of them now: scancel {' '.join(job.job_id for job in training_now)}"
        )
    _check_room(study, most_jobs, len(queue) - len(left))
    if study.plan.budget_node_hours:
        # Here, since they read the metrics of all runs, and need pandas.
        from gemstones.cluster.ledger import node_hours
        from gemstones.cluster.plan import check_budget

        targets: dict[str, int] = {}
        for segment in training:
            for run, stop in (*((member, member.steps) for member in segment.before), (segment.run, segment.stop)):
                targets[run.name] = max(stop, targets.get(run.name, 0))
        check_budget(study, *node_hours(study, results.parent, targets))
    return warnings


def _queue() -> list[slurm.Queued]:
    try:
        return slurm.queue()
    except slurm.Unavailable:  # submitting will say so
        return []


def _check_room(study: Study, most_jobs: int, there: int) -> None:
    most = study.plan.queues[study.plan.queue].queued if study.plan.queue else None
    if most and most_jobs + there > most:
        raise UserError(
            f"--jobs: {most_jobs} jobs, and {there} others of yours in the queue, are more than '{study.plan.queue}' takes of one "
            f"user, {most} (plan.queues); " + (f"choose at most {most - there}" if there < most else "wait for those")
        )
