"""Prescriptions: what to train for a budget, and what other choices cost.

laws/<fit>.{json,parquet} and losses/losses.parquet → prescriptions/<fit>.{parquet,html}; laws/<fit>.json → prescriptions/overtraining.parquet;
losses/losses.parquet → prescriptions/overspend.parquet
"""


rule prescription:
    """The optimal shape and tokens over a range of budgets, by one fit."""
    input:
        law="<results>/laws/{fit}.json",
        resamples="<results>/laws/{fit}.parquet",
        losses="<results>/losses/losses.parquet",
        code=modules(
            *(f"prescriptions/{name}" for name in ("bands", "optimum", "page", "search", "speeds", "study")),
            *(f"laws/{name}" for name in ("fit", "power_law", "uncertainty")),
            "cluster/throughput",
            "losses/selections",
            "report",
            "suite/counting",
        ),
    output:
        table="<results>/prescriptions/{fit}.parquet",
        html=report(
            "<results>/prescriptions/{fit}.html",
            caption="../report/prescription.rst",
            category="4 Prescriptions",
            labels={"figure": "{fit}", "shown as": "table"},
        ),
    log:
        "<results>/logs/prescriptions/{fit}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "prescriptions"),
        query=query_of_fit,
    script:
        "../../scripts/prescription.py"


rule overspend:
    """What each run used beyond the frontier that reaches its loss."""
    input:
        losses="<results>/losses/losses.parquet",
        code=modules("prescriptions/overspend", "laws/hull", "laws/power_law", "losses/selections"),
    output:
        "<results>/prescriptions/overspend.parquet",
    log:
        "<results>/logs/prescriptions/overspend.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        overspend=config["overspend"],
        query=query_of_overspend,
    script:
        "../../scripts/overspend.py"


rule overtraining:
    """The loss of training longer, and smaller, than the optimum at the same FLOPs."""
    input:
        law=overtraining_law,
        code=modules(
            *(f"prescriptions/{name}" for name in ("optimum", "overtraining", "search")),
            "laws/power_law",
            "suite/counting",
        ),
    output:
        "<results>/prescriptions/overtraining.parquet",
    log:
        "<results>/logs/prescriptions/overtraining.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "overtraining"),
    script:
        "../../scripts/overtraining.py"
