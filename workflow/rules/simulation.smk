"""Simulation: how often the intervals of laws hold the truth, in suites that follow known laws.

config → laws/simulation/<scenario>-<part>.parquet → laws/coverage.{csv,html}
"""


rule simulation:
    """Intervals of one part of a scenario's suites, by every method."""
    input:
        code=modules(
            *(
                f"laws/{name}"
                for name in (
                    "coverage",
                    "fit",
                    "hull",
                    "identifiability",
                    "descent",
                    "minima",
                    "minimize",
                    "objective",
                    "power_law",
                    "resampling",
                    "rows",
                )
            ),
            *(f"laws/{name}" for name in ("choice", "holdout", "simulation", "starts", "uncertainty")),
            *(f"prescriptions/{name}" for name in ("bands", "coverage", "search")),
            *(f"suite/{name}" for name in ("counting", "shapes")),
        ),
    output:
        "<results>/laws/simulation/{scenario}-{part}.parquet",
    log:
        "<results>/logs/laws/simulation/{scenario}-{part}.log",
    benchmark:
        "<results>/logs/laws/simulation/{scenario}-{part}.benchmark.tsv"
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("seed", "suite", "recipe", "bootstrap"),
        simulation=simulation_of,
    script:
        "../../scripts/simulation.py"


rule coverage:
    """Share of suites whose interval holds the truth."""
    input:
        parts=simulated_parts,
        code=modules("laws/coverage", "report"),
    output:
        csv="<results>/laws/coverage.csv",
        html=report(
            "<results>/laws/coverage.html",
            caption="../report/coverage.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "coverage"},
        ),
    log:
        "<results>/logs/laws/coverage.log",
    conda:
        "../../envs/analysis.yaml"
    script:
        "../../scripts/coverage.py"
