"""Suite: which shapes are trained and in which jobs.

config → suite/shapes.csv, suite/plan.csv, suite/plan.html
"""


rule suite:
    """Shapes with their counts, and what the planned training jobs take of a cluster."""
    input:
        code=modules(
            *(f"suite/{name}" for name in ("counting", "recipe", "runs", "shapes", "tables")),
            *(f"cluster/{name}" for name in ("makespan", "memory", "page", "plan", "throughput")),
            "report",
        ),
    output:
        shapes="<results>/suite/shapes.csv",
        plan="<results>/suite/plan.csv",
        html=in_report_if(
            study.runs,  # without, there is nothing to see
            "<results>/suite/plan.html",
            caption="../report/plan.rst",
            category="1 Suite",
            subcategory="Tables",
            labels={"table": "plan"},
        ),
    log:
        "<results>/logs/suite.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "recipe", "runs", "plan", "training"),
    script:
        "../../scripts/suite.py"
