"""Dry runs of the workflow through Snakemake's own API: which jobs would run, and why."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, ResourceSettings

from tests.conftest import ROOT

PARTS = ["Snakefile", "config", "envs", "gemstones", "profiles", "scripts", "workflow"]


@dataclass
class Job:
    rule: str
    wildcards: dict[str, str]
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
            self.jobs.append(Job(values["rule_name"], wildcards, list(values["output"] or []), str(values["reason"])))


def copy_project(folder: Path) -> Path:
    """A copy of the project's files, so that a test may run and edit it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / part)
    return folder


def dry_run(
    folder: Path, config: str | Path | None = None, targets: tuple[str, ...] = (), changes: dict[str, Any] | None = None
) -> list[Job]:
    """Jobs that Snakemake would run in a project's folder.

    Parameters
    ----------
    config : a config file; by default Snakemake takes the study `mini`.
    changes : config values that replace the file's, as `--config` does.
    """
    recorder = _Recorder()
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(config=changes or {}, configfiles=(Path(config),) if config else ()),
            snakefile=folder / "Snakefile",
            workdir=folder,
        )
        logger.addHandler(recorder)
        try:
            workflow.dag(DAGSettings(targets=set(targets))).execute_workflow(executor="dryrun")
        finally:
            logger.removeHandler(recorder)
    return recorder.jobs
