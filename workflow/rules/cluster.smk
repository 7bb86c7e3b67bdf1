"""Cluster: what training has taken.

training/<run>/steps/<step>.json, metrics and Slurm's account → cluster/ledger.{csv,html}
What sacct once said stays in cluster/jobs.csv, undeclared, since its database is purged and Snakemake deletes outputs.
"""


rule ledger:
    """Every attempt at every run: planned and spent node-hours, lost work, efficiency; `gemstones ledger` shows it at any time."""
    input:
        last_manifests,
        code=modules(
            *(f"cluster/{name}" for name in ("attempts", "hours", "jobs", "ledger", "parts", "progress", "slurm")),
            "report",
            "suite/runs",
        ),
    output:
        csv="<results>/cluster/ledger.csv",
        html=report(
            "<results>/cluster/ledger.html",
            caption="../report/ledger.rst",
            category="1 Suite",
            subcategory="Tables",
            labels={"table": "ledger"},
        ),
    log:
        "<results>/logs/cluster/ledger.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("runs", "plan"),
    script:
        "../../scripts/ledger.py"
