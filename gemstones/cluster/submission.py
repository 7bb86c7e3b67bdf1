"""What is looked at before a study's jobs are submitted to a cluster."""

from __future__ import annotations

import os
from pathlib import Path

from gemstones.cluster.jobs import jobs_left, log_folder
from gemstones.errors import UserError
from gemstones.study import Study


def check_submission(
    study: Study, results: Path, *, account: str | None, most_jobs: int | None, logs: Path | None
) -> list[str]:
    """Refuse what would fail on the cluster or cost more than the budget; gives lines that are worth a warning.

    Parameters
    ----------
    results : `results/<study>`.
    account : as the profile names it, with variables of the environment; None if it names none.
    most_jobs : that are in the queue at the same time.
    logs : Slurm's logs.

    Raises
    ------
    UserError
        If the account's variable is not set, the queue takes fewer jobs, or plan.budget_node_hours does not suffice.
    """
    if account and "$" in os.path.expandvars(account):
        name = account.strip("${}")
        raise UserError(f"{name}: not set; say which account is charged, as in `export {name}=abc123`")
    queue = study.plan.queues[study.plan.queue] if study.plan.queue else None
    if queue and queue.queued and most_jobs and most_jobs > queue.queued:
        raise UserError(
            f"--jobs: {most_jobs} are more than '{study.plan.queue}' takes of one user, {queue.queued} (plan.queues)"
        )
    if study.plan.budget_node_hours:
        # Here, since they need pandas and the metrics of all runs.
        from gemstones.cluster.ledger import spent_node_hours
        from gemstones.cluster.plan import check_budget, remaining_node_hours

        check_budget(study, spent_node_hours(study, results.parent), remaining_node_hours(study, results))
    warnings = []
    if logs and logs.resolve() != log_folder(results).resolve():
        warnings.append(f"Without --slurm-logdir {log_folder(results)}, `gemstones ledger` does not find all jobs.")
    if left := jobs_left(results):
        warnings.append(
            f"{len(left)} jobs of an earlier Snakemake are still there; one that trains saves and stops when it is taken over."
            f" To end all of them now: scancel {' '.join(left)}"
        )
    return warnings
