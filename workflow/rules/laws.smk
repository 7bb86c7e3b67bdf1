"""Laws: every fit of the config.

losses/losses.parquet → laws/<fit>.json
"""


rule law:
    """One fit: convex hull (Approach 1) or Huber (Approach 3)."""
    input:
        losses="<results>/losses/losses.parquet",
        code=modules(
            *(f"laws/{name}" for name in ("__init__", "fit", "hull", "minimize", "power_law", "rows", "starts")),
            "losses/selections",
        ),
    output:
        "<results>/laws/{fit}.json",
    log:
        "<results>/logs/laws/{fit}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        fit=fit_of,
        query=query_of_fit,
        seed=config["seed"],
    script:
        "../../scripts/law.py"
