"""Evaluation: checkpoints of the study's runs on further corpora, and on benchmarks by lm-eval.

training/<run>/steps/<last step>.json → evaluation/losses/<run>.parquet → losses/evaluated.parquet, a source of losses;
training/<run>/steps/<last step>.json → evaluation/benchmarks/<run>.json → evaluation/benchmarks.{parquet,csv,html},
only if asked for, or for a figure:

snakemake -c1 benchmarks_evaluated --configfile …
"""


rule evaluated_run:
    """Losses of a run's kept checkpoints on the corpora of the config's evaluation.sets."""
    input:
        last_job,
        data="<results>/training/data/manifest.json",
        code=modules(
            *(f"evaluation/{name}" for name in ("checkpoints", "losses", "models", "sets")), "training/evaluate"
        ),
    output:
        "<results>/evaluation/losses/{run}.parquet",
    log:
        "<results>/logs/evaluation/losses/{run}.log",
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/training.yaml"
    params:
        manifest=run_manifest,
        sets=config["evaluation"]["sets"],
        least_bytes=config["evaluation"]["bytes"],
    script:
        "../../scripts/evaluated_run.py"


rule evaluated_losses:
    """Those of all runs, as a source of the losses table."""
    input:
        evaluated=expand("<results>/evaluation/losses/{run}.parquet", run=RUNS),
        trained="<results>/losses/trained.parquet",
        code=modules("evaluation/checkpoints", "losses/columns", "losses/table"),
    output:
        "<results>/losses/evaluated.parquet",
    log:
        "<results>/logs/losses/evaluated.log",
    conda:
        "../../envs/training.yaml"
    params:
        sets=config["evaluation"]["sets"],
    script:
        "../../scripts/evaluated_losses.py"


rule lm_eval:
    """A run's last checkpoint on the tasks of the config's evaluation.tasks, exported for the while."""
    input:
        last_job,
        data="<results>/training/data/manifest.json",
        code=modules("evaluation/harness", "training/export"),
    output:
        "<results>/evaluation/benchmarks/{run}.json",
    log:
        "<results>/logs/evaluation/benchmarks/{run}.log",
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/training.yaml"
    resources:
        command=config["evaluation"]["lm_eval"],
    params:
        manifest=run_manifest,
        tasks=config["evaluation"]["tasks"],
        task_folder=config["evaluation"]["task_folder"],
    script:
        "../../scripts/lm_eval.py"


rule benchmarks_evaluated:
    """Accuracies of all runs' last checkpoints, in the schema of the table of benchmarks."""
    input:
        results=benchmark_results,
        trained="<results>/losses/trained.parquet",
        code=modules("evaluation/harness", *(f"losses/{name}" for name in ("benchmarks", "columns", "table")), "report"),
    output:
        benchmarks="<results>/evaluation/benchmarks.parquet",
        csv="<results>/evaluation/benchmarks.csv",
        html=report(
            "<results>/evaluation/benchmarks.html",
            caption="../report/evaluated_accuracies.rst",
            category="2 Losses",
            subcategory="Tables",
            labels={"table": "benchmarks"},
        ),
    log:
        "<results>/logs/evaluation/benchmarks.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        tasks=config["evaluation"]["tasks"],
    script:
        "../../scripts/benchmarks_evaluated.py"
