"""Prescriptions: what to train for a budget, and what other choices cost.

laws/<fit>.{json,parquet} and losses/losses.parquet → prescriptions/<fit>.{parquet,csv,html}, prescriptions/overtraining.parquet;
losses/losses.parquet → prescriptions/overspend.parquet
"""


rule prescription:
    """The optimal shape and tokens over a range of budgets, by one fit."""
    input:
        law="<results>/laws/{fit}.json",
        resamples="<results>/laws/{fit}.parquet",
        losses="<results>/losses/losses.parquet",
        code=modules(
            *(
                f"prescriptions/{name}"
                for name in (
                    "against_runs",
                    "run_curves",
                    "bands",
                    "depth_width",
                    "optimum",
                    "page",
                    "reference",
                    "search",
                    "speeds",
                    "study",
                )
            ),
            *(f"laws/{name}" for name in ("__init__", "stored", "fit", "noise", "power_law", "rows", "uncertainty")),
            *(f"losses/{name}" for name in ("selections", "table")),
            *(f"suite/{name}" for name in ("counting", "shapes")),
            "cluster/throughput",
            "report",
        ),
    output:
        table="<results>/prescriptions/{fit}.parquet",
        csv="<results>/prescriptions/{fit}.csv",
        html=report(
            "<results>/prescriptions/{fit}.html",
            caption="../report/prescription.rst",
            category="4 Prescriptions",
            subcategory="Tables",
            labels={"table": "{fit}"},
        ),
    log:
        "<results>/logs/prescriptions/{fit}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite"),
        # But for which fits there are.
        prescriptions={key: value for key, value in config["prescriptions"].items() if key != "fits"},
        query=query_of_fit,
    script:
        "../../scripts/prescription.py"


rule overspend:
    """What each run used beyond the frontier that reaches its loss."""
    input:
        losses="<results>/losses/losses.parquet",
        code=modules("prescriptions/overspend", "laws/hull", "laws/power_law", "losses/selections", "losses/table"),
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
    """The loss of training longer, and smaller, than the optimum on the same budget."""
    input:
        unpack(overtraining_laws),
        losses="<results>/losses/losses.parquet",
        code=modules(
            *(f"prescriptions/{name}" for name in ("bands", "optimum", "overtraining", "search", "speeds", "study")),
            *(f"laws/{name}" for name in ("__init__", "stored", "fit", "power_law", "uncertainty")),
            *(f"losses/{name}" for name in ("selections", "table")),
            *(f"suite/{name}" for name in ("counting", "shapes")),
            "cluster/throughput",
        ),
    output:
        "<results>/prescriptions/overtraining.parquet",
    log:
        "<results>/logs/prescriptions/overtraining.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("suite", "overtraining"),
        nodes=config["prescriptions"]["nodes"],
        queries=queries_of_overtraining,
    script:
        "../../scripts/overtraining.py"
