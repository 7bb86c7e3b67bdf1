"""Figures: SVG, PDF and PNG, the drawn data as CSV, and all of it as a page for the report.

every stage's tables → figures/<figure>.{svg,pdf,png,csv,html}
"""


rule figure:
    """One figure of the config."""
    input:
        unpack(figure_inputs),
        shapes="<results>/suite/shapes.csv",
        shared=modules(
            *(
                f"figures/{name}"
                for name in (
                    "__init__",
                    "axes",
                    "hulls",
                    "inputs",
                    "output",
                    "panels",
                    "plane",
                    "published",
                    "style",
                )
            ),
            *(f"laws/{name}" for name in ("curves", "downstream", "fit", "hull", "power_law", "uncertainty")),
            "losses/selections",
            "report",
        ),
    output:
        svg="<results>/figures/{figure}.svg",
        pdf="<results>/figures/{figure}.pdf",
        csv="<results>/figures/{figure}.csv",
        png="<results>/figures/{figure}.png",
        html=report(
            "<results>/figures/{figure}.html",
            caption="../report/figure.rst",
            category=figure_category,
            subcategory="Figures",
            labels={"figure": "{figure}"},
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


if study.study == "released":

    rule gallery:
        """The figures that the documentation shows, small; `all` does not need it."""
        input:
            pictures=expand("<results>/figures/{figure}.png", figure=study.figures),
            code=modules("figures/gallery"),
        output:
            page="docs/gallery.md",
            pictures=expand("docs/images/gallery/{figure}.png", figure=study.figures),
        log:
            "<results>/logs/figures/gallery.log",
        conda:
            "../../envs/analysis.yaml"
        params:
            described={name: described_figure(name) for name in study.figures},
        script:
            "../../scripts/gallery.py"
