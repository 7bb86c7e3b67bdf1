"""Laws: every fit of the config.

losses/losses.parquet → laws/<fit>.json, its card, laws/<fit>.html, and laws/<fit>.parquet, the same law fitted to resamples;
losses/losses.parquet → laws/comparison.{csv,html}, laws/choice.json, which says which fit prescribes;
losses/losses.parquet → laws/early_stopping.{csv,html}; laws/<fit>.json → laws/slopes.{csv,html,tex};
with losses/anomalies.csv → laws/without_anomalies.{csv,html}; with losses/benchmarks.parquet →
laws/downstream.{json,csv,html}, laws/downstream_{points,resamples}.parquet; with the authors' published fits → laws/published.{csv,html}
"""


rule law:
    """One fit, convex hull (Approach 1) or Huber (Approach 3), with its intervals."""
    input:
        losses="<results>/losses/losses.parquet",
        code=modules(
            *(
                f"laws/{name}"
                for name in ("__init__", "stored", "card", "certificate", "fit", "holdout", "hull", "identifiability")
            ),
            *(
                f"laws/{name}"
                for name in (
                    "descent",
                    "minima",
                    "minimize",
                    "objective",
                    "noise",
                    "patterns",
                    "power_law",
                    "resampling",
                    "rows",
                )
            ),
            *(f"laws/{name}" for name in ("starts", "uncertainty")),
            *(f"losses/{name}" for name in ("columns", "origin", "selections", "table")),
            "report",
            "suite/recipe",
        ),
    output:
        law="<results>/laws/{fit}.json",
        resamples="<results>/laws/{fit}.parquet",
        card=report(
            "<results>/laws/{fit}.html",
            caption="../report/card.rst",
            category="3 Laws",
            subcategory="Fits",
            labels={"fit": "{fit}"},
        ),
    log:
        "<results>/logs/laws/{fit}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        fit=fit_of,
        query=query_of_fit,
        seed=config["seed"],
        bootstrap=config["bootstrap"],
        holdout=config["holdout"],
        described=sections("suite", "recipe", "runs", "data", "losses"),
        unfinished=f"{RESULTS}/laws/unfinished/{{fit}}",
    script:
        "../../scripts/law.py"


rule published_laws:
    """Every fit beside its published counterpart, downloaded or taken from the folder that GEMSTONES_DATA names."""
    input:
        losses="<results>/losses/losses.parquet",
        laws=expand("<results>/laws/{fit}.json", fit=study.fits),
        code=[
            *modules(
                *(f"laws/{name}" for name in ("__init__", "stored", "fit", "hull", "power_law", "published")),
                *(f"losses/{name}" for name in ("released", "selections")),
                "report",
            ),
            RELEASED_HASHES,
        ],
    output:
        csv="<results>/laws/published.csv",
        html=report(
            "<results>/laws/published.html",
            caption="../report/published_laws.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "published_laws"},
        ),
    log:
        "<results>/logs/laws/published_laws.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("selections", "fits"),
        downloads=DOWNLOADS,
    script:
        "../../scripts/published_laws.py"


rule anomaly_effect:
    """Fits with and without the anomalous rows that they saw, side by side."""
    input:
        losses="<results>/losses/losses.parquet",
        anomalies="<results>/losses/anomalies.csv",
        code=modules(
            *(
                f"laws/{name}"
                for name in (
                    "__init__",
                    "fit",
                    "hull",
                    "identifiability",
                    "descent",
                    "minima",
                    "minimize",
                    "objective",
                    "power_law",
                )
            ),
            *(f"laws/{name}" for name in ("rows", "starts")),
            *(f"losses/{name}" for name in ("anomalies", "columns", "selections", "table")),
            "laws/sensitivity",
            "report",
        ),
    output:
        csv="<results>/laws/without_anomalies.csv",
        html=report(
            "<results>/laws/without_anomalies.html",
            caption="../report/without_anomalies.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "without_anomalies"},
        ),
    log:
        "<results>/logs/laws/anomaly_effect.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("fits", "selections", "seed"),
    script:
        "../../scripts/anomaly_effect.py"


rule comparison:
    """Laws of several forms on the same rows: held-out errors, AIC and BIC; and the fit that prescribes."""
    input:
        losses="<results>/losses/losses.parquet",
        code=[
            *modules(
                *(
                    f"laws/{name}"
                    for name in (
                        "choice",
                        "comparison",
                        "fit",
                        "holdout",
                        "kaplan",
                        "descent",
                        "minima",
                        "minimize",
                        "objective",
                    )
                ),
                *(f"laws/{name}" for name in ("power_law", "identifiability", "published", "rows", "starts")),
                *(f"losses/{name}" for name in ("released", "selections")),
                "report",
            ),
            RELEASED_HASHES,
        ],
    output:
        csv="<results>/laws/comparison.csv",
        choice="<results>/laws/choice.json",
        html=report(
            "<results>/laws/comparison.html",
            caption="../report/comparison.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "comparison"},
        ),
    log:
        "<results>/logs/laws/comparison.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("selections", "fits", "holdout", "comparisons", "seed"),
        prescribed={key: config["prescriptions"][key] for key in ("fits", "main")},
        downloads=DOWNLOADS,
    script:
        "../../scripts/comparison.py"


rule downstream:
    """Laws from the validation loss to error and accuracy on benchmarks, with intervals and held-out errors."""
    input:
        losses="<results>/losses/losses.parquet",
        benchmarks="<results>/losses/benchmarks.parquet",
        code=modules(
            *(f"laws/{name}" for name in ("curves", "downstream", "rows", "uncertainty")),
            *(f"losses/{name}" for name in ("benchmarks", "columns", "selections", "table")),
            "report",
        ),
    output:
        json="<results>/laws/downstream.json",
        csv="<results>/laws/downstream.csv",
        points="<results>/laws/downstream_points.parquet",
        resamples="<results>/laws/downstream_resamples.parquet",
        html=report(
            "<results>/laws/downstream.html",
            caption="../report/downstream.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "downstream"},
        ),
    log:
        "<results>/logs/laws/downstream.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        validation_set=config["losses"]["validation_set"],
        bootstrap=config["bootstrap"],
        holdout=config["holdout"],
        seed=config["seed"],
    script:
        "../../scripts/downstream.py"


rule slopes:
    """Slope of the optimal parameters and irreducible loss of every fit, with intervals, and as the authors published them."""
    input:
        laws=expand("<results>/laws/{fit}.json", fit=study.fits),
        published=published_table,
        code=modules(
            *(f"laws/{name}" for name in ("__init__", "stored", "fit", "hull", "power_law", "slopes")), "report"
        ),
    output:
        csv="<results>/laws/slopes.csv",
        tex="<results>/laws/slopes.tex",
        html=report(
            "<results>/laws/slopes.html",
            caption="../report/slope_table.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "slope_table"},
        ),
    log:
        "<results>/logs/laws/slopes.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("fits"),
    script:
        "../../scripts/slopes.py"


rule early_stopping:
    """Where the authors' optimiser stops, from a sample of their grid of starts, and where ours does."""
    input:
        losses="<results>/losses/losses.parquet",
        code=modules(
            *(
                f"laws/{name}"
                for name in (
                    "early_stopping",
                    "fit",
                    "descent",
                    "minima",
                    "minimize",
                    "objective",
                    "power_law",
                    "rows",
                    "starts",
                )
            ),
            "losses/selections",
            "report",
        ),
    output:
        csv="<results>/laws/early_stopping.csv",
        html=report(
            "<results>/laws/early_stopping.html",
            caption="../report/starts.rst",
            category="3 Laws",
            subcategory="Tables",
            labels={"table": "early_stopping"},
        ),
    log:
        "<results>/logs/laws/early_stopping.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        early_stopping=config["early_stopping"],
        queries=queries_of_early_stopping,
        seed=config["seed"],
    script:
        "../../scripts/early_stopping.py"
