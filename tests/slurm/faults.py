"""A study through the profile of Frontier on the Slurm of tests, with a fault for every run; then its losses against a local run's.

    python -m tests.slurm.cluster start
    python -m tests.slurm.faults --folder /tmp/faults              # all faults of tests, 3-4 minutes
    python -m tests.slurm.faults --folder /tmp/faults --config config/config.yaml --steps 120   # the mini study, shortened

Each fault waits until its run has taken a step of some job. Prints what is done as it is done, then a table: fault, states of the
run's Slurm jobs (sacct), steps that were trained twice, and whether losses are equal. Exit status 1 if any is not.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gemstones.study import load
from gemstones.suite.runs import all_runs
from tests.conftest import ROOT, TINY, copy_project, snakemake
from tests.slurm import cluster

CHANGES = Path(__file__).parent / "study.yaml"
# Of whole segments; a fault strikes as soon as its run's metrics have this step.
STEP = 80
# Seconds, for what takes a minute or two.
LONGEST = 900
# An attempt that needs more memory than it asked for; all other attempts get whole nodes.
TOO_LITTLE = "mem_mb: '150 if attempt == 1 else 0'"


@dataclass
class Project:
    """A copy of the project with one study, and what is known of its jobs."""

    folder: Path
    config: Mapping[str, Any]
    began: float = field(default_factory=time.time)

    @property
    def training(self) -> Path:
        return self.folder / "results" / self.config["study"] / "training"

    @property
    def runs(self) -> list[str]:
        return [run.name for run in all_runs(load(self.config))]

    def start(self, *targets: str, retries: int = 5, profile: str = "frontier") -> subprocess.Popen[str]:
        """Snakemake with a profile, as a user starts it but for quicker polling."""
        options = ["--configfile", "config/study.yaml", "--latency-wait", "10", "--rerun-incomplete"]
        options += ["--slurm-init-seconds-before-status-checks", "1"]
        options += ["--retries", str(retries), "--slurm-logdir", f"results/{self.config['study']}/logs/slurm"]
        return subprocess.Popen(
            [sys.executable, "-m", "tests.slurm.snakemake", *targets, "--profile", profile, *options],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "GEMSTONES_ACCOUNT": cluster.ACCOUNT},
            stdout=(self.folder / "snakemake.log").open("a"),
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )

    def rows(self, run: str, kind: str) -> list[dict[str, Any]]:
        """Rows of a run's metrics as they were written."""
        text = "".join(path.read_text() for path in (self.training / run).glob("metrics/*.jsonl"))
        rows = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return [row for row in rows if row["kind"] == kind]

    def losses(self, run: str) -> dict[str, dict[int, float]]:
        return {kind: {row["step"]: row["loss"] for row in self.rows(run, kind)} for kind in ("train", "validation")}

    def replayed(self, run: str) -> int:
        """Steps that were trained more than once."""
        steps = [row["step"] for row in self.rows(run, "train")]
        return len(steps) - len(set(steps))

    def job(self, run: str) -> str:
        """The running Slurm job of a run, once it has taken a step."""
        wildcards = rf"_wildcards_{run}_\d+"
        while True:
            for line in slurm("squeue", "--noheader", "--states", "RUNNING", "--format", "%i %k").splitlines():
                number, _, comment = line.partition(" ")
                if re.search(f"{wildcards}$", comment):
                    return number
            time.sleep(0.05)

    def states(self, run: str) -> list[str]:
        """`id state` of all Slurm jobs of a run in the order of their numbers, by the accounting."""
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.began - 1))
        text = slurm("sacct", "-X", "-n", "-P", "--duplicates", "-S", since, "-o", "JobIDRaw,State,WorkDir,Comment")
        found = [line.split("|") for line in text.splitlines()]
        mine = [
            (job, state)
            for job, state, folder, comment in found
            if folder == str(self.folder.resolve()) and re.search(rf"_wildcards_{run}_\d+$", comment)
        ]
        return [f"{job} {state.split()[0]}" for job, state in mine]


def heed_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so does what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make(folder: Path, config: Mapping[str, Any]) -> Project:
    copy_project(folder)
    (folder / "frontier").symlink_to("profiles/frontier")
    (folder / "config/study.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False))
    return Project(folder, config)


def tiny() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(TINY.read_text())
    return config | yaml.safe_load(CHANGES.read_text())


def shortened(config: Path, steps: int) -> dict[str, Any]:
    """A study of config/ with `steps` steps a run in two segments, and a cooldown from each."""
    content: dict[str, Any] = yaml.safe_load(config.read_text())
    half = steps // 2
    content["study"] = f"{content['study']}_short"
    content["runs"]["main"] |= {"steps": steps, "evaluate_every": half // 2}
    content["runs"]["lr_ablation"] |= {"steps": steps}
    content["runs"]["cooldown"] |= {"anchors": [half, steps]}
    content["plan"] |= {"segment_steps": half}
    content["overspend"] |= {"step": steps}
    content["selections"] = {
        name: query.replace("step >= 60", f"step >= {half // 2}") for name, query in content["selections"].items()
    }
    return content


# The faults: each is given the project and a run whose job has taken some steps.


def send(project: Project, run: str, number: signal.Signals) -> None:
    """A signal to a run's training process."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, folder = (process / "cmdline").read_bytes().split(b"\0"), (process / "cwd").resolve()
        except OSError:
            continue  # it has ended
        trains = b"train" in command and f'"name": "{run}"'.encode() in b" ".join(command)
        if trains and folder == project.folder.resolve() and b"srun" not in command:
            os.kill(int(process.name), number)


def kill(project: Project, run: str) -> None:
    """SIGKILL to the training process."""
    send(project, run, signal.SIGKILL)


def node_down(project: Project, run: str) -> None:
    """The node of its job fails."""
    node = slurm("squeue", "--noheader", "--jobs", project.job(run), "--format", "%N").strip()
    slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")


def cancel(project: Project, run: str) -> None:
    """Someone cancels its job."""
    slurm("scancel", project.job(run))


def requeue(project: Project, run: str) -> None:
    """An operator puts its job back into the queue."""
    job = project.job(run)
    slurm("scontrol", "update", f"jobid={job}", "requeue=1")
    slurm("scontrol", "requeue", job)
    while slurm("squeue", "--noheader", "--jobs", job, "--format", "%T").strip() != "PENDING":
        time.sleep(0.1)
    # Else it would wait for two minutes.
    slurm("scontrol", "update", f"jobid={job}", "starttime=now")


def warn(project: Project, run: str) -> None:
    """Slurm's signal before the walltime."""
    slurm("scancel", "--signal=USR1", project.job(run))


def freeze(project: Project, run: str) -> None:
    """Snakemake is killed, and started again while its job, which stands still, has the run."""
    send(project, run, signal.SIGSTOP)


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C to Snakemake, which is started again."""
    process.send_signal(signal.SIGINT)


def strike(
    project: Project, run: str, fault: Callable[[Project, str], None], step: int = STEP, doc: str = ""
) -> threading.Thread:
    """Let a fault happen to a run, as soon as it has taken a step."""

    def wait() -> None:
        while not any(row["step"] >= step for row in project.rows(run, "train")):
            time.sleep(0.02)
        print(f"{time.strftime('%H:%M:%S')} {run}: {doc or fault.__doc__}", flush=True)
        fault(project, run)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def out_of_memory(project: Project) -> str:
    """The learning-rate ablation asks for too little memory the first time."""
    profile = project.folder / "profiles/frontier/config.yaml"
    text = profile.read_text()
    assert "  train_lr_ablation: *train\n" in text
    profile.write_text(
        text.replace("  train_lr_ablation: *train\n", f"  train_lr_ablation:\n    <<: *train\n    {TOO_LITTLE}\n")
    )
    return next(run for run in project.runs if run.endswith("-lr_ablation"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="for two copies of the project; made anew")
    parser.add_argument("--config", type=Path, help="a study of config/; by default the one of tests")
    parser.add_argument("--steps", type=int, default=120, help="of each of its runs")
    parser.add_argument("--step", type=int, help="at which faults strike")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    config = shortened(options.config, options.steps) if options.config else tiny()
    local, project = make(options.folder / "local", config), make(options.folder / "slurm", config)
    print("a local run, to compare with", flush=True)
    snakemake(local.folder, "--cores", "2", "--configfile", "config/study.yaml")
    project.began = time.time()
    step = options.step or (options.steps // 3 if options.config else STEP)
    told = suffer(project, step=step)
    print("| fault | run | Slurm jobs | steps trained twice | losses |\n|---|---|---|---|---|")
    different = 0
    for run in project.runs:
        same = project.losses(run) == local.losses(run)
        different += not same
        states, replayed = ", ".join(project.states(run)), project.replayed(run)
        print(f"| {told.get(run, '')} | {run} | {states} | {replayed} | {'equal' if same else 'DIFFERENT'} |")
    raise SystemExit(bool(different))


def suffer(project: Project, *targets: str, step: int = STEP) -> dict[str, str]:
    """Run the study to its end with all faults; gives each run's faults."""
    mains = [run for run in project.runs if re.fullmatch(r"\d+x\d+", run)]
    faults = dict(zip(mains, (kill, node_down, cancel, requeue, warn), strict=False))
    told = {run: str(fault.__doc__) for run, fault in faults.items()}
    told[out_of_memory(project)] = str(out_of_memory.__doc__)
    threads = [strike(project, run, fault, step) for run, fault in faults.items()]
    # In the last one's second job.
    run, half = list(faults)[-1], project.config["runs"]["main"]["steps"] // 2
    told[run] += f" {interrupt.__doc__} {freeze.__doc__}"
    first = project.start(*targets)
    threads.append(strike(project, run, lambda *_: interrupt(first), half + step // 2, str(interrupt.__doc__)))
    wait_for(threads, first, project)
    first.wait(LONGEST)  # which cancels its jobs
    second = project.start(*targets)
    wait_for([strike(project, run, freeze, half + 3 * step // 2)], second, project)
    second.kill()
    second.wait()
    # As the third one would say: those that wait are ended first.
    lines = slurm("squeue", "--noheader", "--states", "PENDING", "--format", "%i %Z").splitlines()
    for job, place in (line.split(" ", 1) for line in lines):
        if place == str(project.folder.resolve()):
            slurm("scancel", job)
    snakemake(project.folder, "--unlock", "--configfile", "config/study.yaml")
    third = project.start(*targets)
    log = project.folder / "results" / project.config["study"] / f"logs/training/{run}"
    end = time.monotonic() + LONGEST
    while not any("telling it to save and stop" in path.read_text() for path in log.glob("*.log")):
        assert third.poll() is None
        assert time.monotonic() < end, f"ended early: {project.folder / 'snakemake.log'}"
        time.sleep(0.1)
    send(project, run, signal.SIGCONT)
    assert third.wait(LONGEST) == 0, project.folder / "snakemake.log"
    return told


def wait_for(threads: list[threading.Thread], process: subprocess.Popen[str], project: Project) -> None:
    end = time.monotonic() + LONGEST
    for thread in threads:
        while thread.is_alive():
            thread.join(0.1)
            over = process.poll() is not None or time.monotonic() > end
            assert not (over and thread.is_alive()), f"ended early: {project.folder / 'snakemake.log'}"


if __name__ == "__main__":
    main()
