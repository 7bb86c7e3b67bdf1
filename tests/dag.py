"""Dry runs of the workflow through Snakemake's own API: which jobs would run, and why."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings


@dataclass
class Job:
    rule: str
    wildcards: dict[str, str]
    input: list[str]
    output: list[str]
    reason: str


class _Recorder(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []

    def emit(self, record: logging.LogRecord) -> None:
        if str(getattr(record, "event", "")).endswith("job_info"):
            values: Any = record.__dict__
            wildcards = dict(values.get("wildcards") or {})
            files = [list(values[name] or []) for name in ("input", "output")]
            self.jobs.append(Job(values["rule_name"], wildcards, *files, str(values["reason"])))


def dry_run(
    folder: Path,
    config: str = "config/tiny.yaml",
    targets: tuple[str, ...] = (),
    resources: dict[str, dict[str, Any]] | None = None,
) -> list[Job]:
    """Jobs that Snakemake would run in a project's folder, target rules left out.

    Parameters
    ----------
    resources : rule to resources that replace its own, as a profile's `set-resources` does.
    """
    recorder = _Recorder()
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2, overwrite_resources=resources or {}),
            config_settings=ConfigSettings(configfiles=(folder / config,)),
            snakefile=folder / "Snakefile",
            workdir=folder,
        )
        logger.addHandler(recorder)
        try:
            workflow.dag(DAGSettings(targets=set(targets))).execute_workflow(executor="dryrun")
        finally:
            logger.removeHandler(recorder)
    return [job for job in recorder.jobs if job.output]


def count(jobs: list[Job]) -> Counter[str]:
    """Jobs by rule."""
    return Counter(job.rule for job in jobs)
