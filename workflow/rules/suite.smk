"""Suite: which shapes are trained and in which jobs.

config → suite/shapes.csv, suite/plan.csv
"""


rule suite:
    """Shapes with their counts, and the planned training jobs."""
    input:
        code=modules(*(f"suite/{name}" for name in ("counting", "memory", "recipe", "runs", "shapes", "tables"))),
    output:
        shapes="<results>/suite/shapes.csv",
        plan="<results>/suite/plan.csv",
    log:
        "<results>/logs/suite.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "recipe", "runs", "plan", "training"),
    script:
        "../../scripts/suite.py"
