"""Figures: SVG, PDF and PNG, with the drawn data as CSV and as a page for the report.

every stage's tables → figures/<figure>.{svg,pdf,png,csv,html}
"""


rule figure:
    """One figure of the config."""
    input:
        unpack(figure_inputs),
        shapes="<results>/suite/shapes.csv",
        shared=modules(
            *(f"figures/{name}" for name in ("__init__", "axes", "inputs", "output", "panels", "published", "style")),
            *(f"laws/{name}" for name in ("curves", "downstream", "fit", "hull", "power_law", "uncertainty")),
            "losses/selections",
            "report",
        ),
    output:
        svg="<results>/figures/{figure}.svg",
        pdf="<results>/figures/{figure}.pdf",
        csv="<results>/figures/{figure}.csv",
        png=report(
            "<results>/figures/{figure}.png",
            caption="../report/figure.rst",
            category=figure_category,
            labels={"figure": "{figure}", "shown as": "figure"},
        ),
        html=report(
            "<results>/figures/{figure}.html",
            caption="../report/figure.rst",
            category=figure_category,
            labels={"figure": "{figure}", "shown as": "table"},
        ),
    log:
        "<results>/logs/figures/{figure}.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        figure=figure_of,
        config=drawn_config,
        caption=figure_caption,
    script:
        "../../scripts/figure.py"
