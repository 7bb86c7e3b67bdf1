"""From wildcards to paths and parameters: the study's names, looked up once. What computes lives in the package."""

import sys
from pathlib import Path
from shlex import quote
from time import time

from gemstones.cluster.memory import planned_processes
from gemstones.cluster.purge import archive_folder, purge_warnings
from gemstones.cluster.submission import check_submission
from gemstones.cluster.throughput import speed
from gemstones.errors import UserError
from gemstones.figures.kinds import KINDS, tables_of
from gemstones.study import load
from gemstones.suite.runs import segments

# The environment's own commands come first, also where it was not activated.
shell.prefix(f'export PATH="{Path(sys.executable).parent}:$PATH"; ')

try:
    study = load(config, ", ".join(map(str, workflow.configfiles)) or "config")
    # Every planned training job by (run, last step); the DAG's training part is drawn from it.
    JOBS = {(segment.run.name, segment.stop): segment for segment in segments(study)}
    # Every run's last job, which may train other runs first.
    RUNS = {run.name: job for job, segment in JOBS.items() for run in (*segment.before, segment.run)}
    ARCHIVE = archive_folder(study)
except UserError as error:
    sys.exit("\n".join(f"error: {line}" for line in str(error).splitlines()))

# From here on, rules see checked values with defaults.
config.update(study.model_dump(mode="json"))

# For params, where <results> is not filled in.
RESULTS = f"results/{study.study}"

# The authors' files: where downloads are kept, and their SHA-256.
DOWNLOADS = f"{RESULTS}/losses/downloads"
RELEASED_HASHES = "gemstones/losses/released.sha256"

# The section `training` for its command line, as a resource: unlike params, resources rerun nothing.
TRAINING_SETTINGS = study.training.model_dump_json(exclude_defaults=True)

# Of training jobs; without a planned queue, the profile's own.
PARTITION = {"slurm_partition": study.plan.queue} if study.plan.queue else {}


def look_before_start():
    """Warn of what is purged soon and, before anything is submitted to a cluster, refuse what would fail there."""
    warnings = purge_warnings(study, Path(RESULTS), time())
    submitted = [job for job in workflow.dag.needrun_jobs() if not (workflow.local_exec or job.is_local)]
    if submitted:
        settings, resources = workflow.executor_settings, workflow.resource_settings
        trained = [
            JOBS[job.wildcards.run, int(job.wildcards.step)] for job in submitted if job.rule.name.startswith("train_")
        ]
        try:
            warnings += check_submission(
                study,
                Path(RESULTS),
                account=getattr(resources.default_resources.get("slurm_account"), "raw", None),
                most_jobs=min(resources.nodes or len(submitted), len(submitted)),
                training=trained,
                # Of Slurm's executor, with its default.
                logs=Path(settings.logdir or ".snakemake/slurm_logs") if hasattr(settings, "logdir") else None,
            )
        except UserError as error:
            sys.exit(f"error: {error}")
    for line in warnings:
        logger.warning(line)


def one_of(names):
    """A wildcard that is one of the config's names, and nothing else."""
    return "|".join(sorted(names)) or "none"


def sections(*names):
    """Sections of the config as params, so that a rule reruns when one of them changes."""
    return {name: config[name] for name in names}


def planned(wildcards):
    """The training job that brings a run to a step."""
    try:
        return JOBS[wildcards.run, int(wildcards.step)]
    except KeyError:
        stops = [str(stop) for run, stop in JOBS if run == wildcards.run]
        jobs = f"its jobs stop at {', '.join(stops)}" if stops else "the study has no such run"
        sys.exit(f"error: no job brings {wildcards.run} to step {wildcards.step}: {jobs}")


def job_text(wildcards):
    return planned(wildcards).job()


def job_nodes(wildcards):
    return speed(study, planned(wildcards).run).nodes


def job_processes(wildcards):
    """How many processes a launcher starts; several on one machine start each other."""
    return 1 if study.training.processes > 1 else planned_processes(study, planned(wildcards).run)


def job_minutes(wildcards):
    return max(1, int(study.plan.walltime(job_nodes(wildcards))))


def jobs_before(wildcards):
    return manifests(planned(wildcards).after)


def manifests(jobs):
    return [f"<results>/training/{run}/steps/{stop}.json" for run, stop in jobs]


def last_manifests(wildcards):
    """The manifest of every run's last job."""
    return manifests({run: (run, stop) for run, stop in JOBS}.values())


def last_job(wildcards):
    """The manifest of the job that brings a run to its end."""
    return manifests([RUNS[wildcards.run]])


def run_manifest(wildcards):
    """The run's own manifest: where a job trains several runs, only that of the last one is its output."""
    segment = JOBS[RUNS[wildcards.run]]
    (run,) = (run for run in (*segment.before, segment.run) if run.name == wildcards.run)
    return f"{RESULTS}/training/{run.name}/steps/{run.steps}.json"


def benchmark_results(wildcards):
    """What lm-eval finds for every run."""
    if not study.evaluation.tasks:
        sys.exit("error: evaluation.tasks: names no task; name those of lm-eval that are wanted, such as arc_easy")
    return expand("<results>/evaluation/benchmarks/{run}.json", run=RUNS)


def archive_or_exit(wildcards):
    if not ARCHIVE:
        sys.exit("error: storage.archive: not set; name the folder for archives, such as one that is never purged")
    return str(ARCHIVE)


def ledger_files(wildcards):
    """What training has taken, of a study that trains."""
    return ["<results>/cluster/ledger.csv"] if study.runs else []


def losses_files(wildcards):
    """The losses table and its anomalies, and the authors' benchmarks; a simulation has none."""
    tables = ["losses.parquet", "anomalies.csv"] * bool(study.losses.sources)
    tables += ["benchmarks.parquet"] * ("released" in study.losses.sources)
    return expand("<results>/losses/{table}", table=tables)


def law_files(wildcards):
    """Every fit, and the tables that set them side by side; of a simulation, the coverage of intervals."""
    tables = ["without_anomalies"] * bool(study.losses.sources) + ["coverage"] * bool(study.simulation)
    tables += ["slopes"] * bool(study.fits) + ["early_stopping"] * bool(study.early_stopping)
    tables += ["comparison"] * bool(study.comparisons)
    tables += ["published", "downstream"] * ("released" in study.losses.sources)
    return expand("<results>/laws/{fit}.json", fit=study.fits) + expand("<results>/laws/{table}.csv", table=tables)


def simulation_of(wildcards):
    """The section simulation with one scenario alone, and the law that it names."""
    scenario = config["simulation"]["scenarios"][wildcards.scenario]
    law = config["simulation"]["laws"][scenario["law"]]
    return {**config["simulation"], "scenarios": scenario, "laws": law}


def simulated_parts(wildcards):
    parts = range(study.simulation.parts)
    return expand(
        "<results>/laws/simulation/{scenario}-{part}.parquet", scenario=study.simulation.scenarios, part=parts
    )


def prescription_files(wildcards):
    tables = [*study.prescriptions.fits, *(name for name in ("overspend", "overtraining") if config[name])]
    return expand("<results>/prescriptions/{table}.parquet", table=tables)


def fit_of(wildcards):
    return config["fits"][wildcards.fit]


def figure_of(wildcards):
    return config["figures"][wildcards.figure]


def drawn_config(wildcards):
    """What a figure reads of the rest of the config: queries and, for fits, the budgets and what decides on their styles."""
    figure = study.figures[wildcards.figure]
    overtrained = study.overtraining.fits if study.overtraining else ()
    drawn = (*figure.fits, *(overtrained if figure.kind == "overtraining" else ()))
    selections = {figure.selection, *(study.fits[fit].selection for fit in drawn)} - {None}
    queries = {name: study.selections[name] for name in sorted(selections)}
    if not drawn:
        return queries
    styled = ("selection", "param_count", "covariates", "huber_delta")
    fits = {name: [getattr(fit, key, None) for key in styled] for name, fit in study.fits.items()}
    together = [(each.kind, each.fits) for each in study.figures.values() if each.fits]
    together.append(("overtraining", overtrained))
    return {**queries, "fits": fits, "together": together, "flops_range": study.prescriptions.flops_range}


def overview_tables(wildcards):
    """What the first page of the report tells of."""
    released = "released" in study.losses.sources
    tables = ["losses/losses.parquet", "losses/anomalies.csv"] * bool(study.losses.sources)
    tables += ["laws/slopes.csv"] * bool(study.fits) + ["laws/comparison.csv"] * bool(study.comparisons)
    tables += ["laws/published.csv", "laws/downstream.csv"] * released
    tables += [f"prescriptions/{name}.parquet" for name in ("overspend", "overtraining") if config[name]]
    tables += [f"prescriptions/{fit}.parquet" for fit in study.prescriptions.fits]
    return expand("<results>/{table}", table=tables)


def choice_file(wildcards):
    """Which fit prescribes, of a study that compares laws."""
    return ["<results>/laws/choice.json"] if study.comparisons else []


def in_report_if(wanted, path, **described):
    """An output that is in the report of some studies only."""
    return report(path, **described) if wanted else path


def modules(*names):
    """Modules of the package whose edits a rule follows."""
    return [f"gemstones/{name}.py" for name in names]


def query_of_fit(wildcards):
    return study.selections[study.fits[wildcards.fit].selection]


def query_of_overspend(wildcards):
    return study.selections[study.overspend.selection]


def queries_of_early_stopping(wildcards):
    return {name: study.selections[name] for name in study.early_stopping.selections}


def published_table(wildcards):
    """The authors' fits, of a study that has them."""
    return ["<results>/laws/published.csv"] if "released" in study.losses.sources else []


def overtraining_laws(wildcards):
    fits = study.overtraining.fits
    return {
        "laws": expand("<results>/laws/{fit}.json", fit=fits),
        "resamples": expand("<results>/laws/{fit}.parquet", fit=fits),
    }


def queries_of_overtraining(wildcards):
    return {fit: study.selections[study.fits[fit].selection] for fit in study.overtraining.fits}


def figure_inputs(wildcards):
    """The tables that a figure draws: losses and shapes always, the rest by its kind and fits."""
    figure = study.figures[wildcards.figure]
    kind = KINDS[figure.kind]
    prescribed = [fit for fit in figure.fits if kind.prescriptions and fit in study.prescriptions.fits]
    others = tables_of(figure.kind, "released" in study.losses.sources)
    return {
        "losses": "<results>/losses/losses.parquet" if study.losses.sources else [],
        "laws": expand("<results>/laws/{fit}.json", fit=figure.fits),
        "resamples": expand("<results>/laws/{fit}.parquet", fit=figure.fits if kind.resamples else []),
        "prescriptions": expand("<results>/prescriptions/{fit}.parquet", fit=prescribed),
        "others": expand("<results>/{table}", table=others),
        "code": modules(f"figures/{figure.kind}", *kind.code),
    }


def described_figure(name):
    """Category and caption of a figure."""
    kind = study.figures[name].kind
    own = kind == "benchmarks" and "released" not in study.losses.sources
    caption = "evaluated_benchmarks" if own else kind
    return KINDS[kind].category, Path(workflow.basedir, "workflow/report", f"{caption}.rst").read_text()


def figure_category(wildcards):
    return described_figure(wildcards.figure)[0]


def figure_caption(wildcards):
    return described_figure(wildcards.figure)[1]
