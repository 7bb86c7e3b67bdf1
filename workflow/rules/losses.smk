"""Losses: one table, whoever trained the models.

training/<run>/ → losses/trained.parquet, losses/steps.parquet; the authors' files → losses/released.parquet;
both → losses/losses.parquet, losses/excluded.csv → losses/anomalies.{csv,html};
the authors' files → losses/industry.csv, losses/preflight.csv, losses/benchmarks.{parquet,html}
"""


rule trained_losses:
    """Every run's validation losses, and what was measured at each of its steps, stitched over its jobs."""
    input:
        last_manifests,
        code=modules(
            *(f"losses/{name}" for name in ("trained", "stitch", "table", "columns")),
            *(f"suite/{name}" for name in ("counting", "recipe", "runs", "shapes")),
            "training/metrics",
        ),
    output:
        losses="<results>/losses/trained.parquet",
        steps="<results>/losses/steps.parquet",
    log:
        "<results>/logs/losses/trained.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "runs"),
        sigmas=config["losses"]["continuity_sigmas"],
        training=f"{RESULTS}/training",
    script:
        "../../scripts/trained_losses.py"


rule released_losses:
    """The losses that the authors released, downloaded or taken from the folder that GEMSTONES_DATA names."""
    input:
        code=[
            *modules(
                *(f"losses/{name}" for name in ("released", "table", "columns")),
                *(f"suite/{name}" for name in ("counting", "recipe", "shapes")),
            ),
            RELEASED_HASHES,
        ],
    output:
        losses="<results>/losses/released.parquet",
        industry="<results>/losses/industry.csv",
        preflight="<results>/losses/preflight.csv",
    log:
        "<results>/logs/losses/released.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "recipe", "plan"),
        downloads=DOWNLOADS,
    script:
        "../../scripts/released_losses.py"


rule losses:
    """The losses table: all sources of the study, checked, without the rows that the config excludes."""
    input:
        sources=expand("<results>/losses/{source}.parquet", source=config["losses"]["sources"]),
        code=modules("losses/table", "losses/columns", "losses/selections"),
    output:
        losses="<results>/losses/losses.parquet",
        excluded="<results>/losses/excluded.csv",
    log:
        "<results>/logs/losses/losses.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        exclusions=config["losses"]["exclusions"],
    script:
        "../../scripts/losses.py"


rule anomalies:
    """Spikes, gaps and unusual speeds of runs, each with its reason."""
    input:
        losses="<results>/losses/losses.parquet",
        excluded="<results>/losses/excluded.csv",
        code=modules("losses/anomalies", "losses/columns", "losses/table", "report"),
    output:
        csv="<results>/losses/anomalies.csv",
        html=report(
            "<results>/losses/anomalies.html",
            caption="../report/anomalies.rst",
            category="2 Losses",
            subcategory="Tables",
            labels={"table": "anomalies"},
        ),
    log:
        "<results>/logs/losses/anomalies.log",
    conda:
        "../../envs/analysis.yaml"
    script:
        "../../scripts/anomalies.py"


rule benchmarks:
    """Accuracies on benchmarks that the authors released, at checkpoints of their runs."""
    input:
        losses="<results>/losses/released.parquet",
        code=[
            *modules(*(f"losses/{name}" for name in ("benchmarks", "columns", "released", "table")), "report"),
            RELEASED_HASHES,
        ],
    output:
        benchmarks="<results>/losses/benchmarks.parquet",
        csv="<results>/losses/benchmarks.csv",
        html=report(
            "<results>/losses/benchmarks.html",
            caption="../report/final_accuracies.rst",
            category="2 Losses",
            subcategory="Tables",
            labels={"table": "final_accuracies"},
        ),
    log:
        "<results>/logs/losses/benchmarks.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        downloads=DOWNLOADS,
    script:
        "../../scripts/benchmarks.py"
