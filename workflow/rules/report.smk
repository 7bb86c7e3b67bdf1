"""The report: what is said on its first page; its other pages are the outputs of rules that are marked so.

tables of all stages → overview.rst
"""


rule overview:
    """What the study has found, in sentences with numbers."""
    input:
        tables=overview_tables,
        laws=expand("<results>/laws/{fit}.json", fit=study.prescriptions.fits),
        choice=choice_file,
        template="workflow/report/workflow.rst",
        code=modules(
            "overview", "laws/__init__", "laws/choice", "figures/axes", "figures/style", "prescriptions/overspend"
        ),
    output:
        "<results>/overview.rst",
    log:
        "<results>/logs/overview.log",
    conda:
        "../../envs/analysis.yaml"
    params:
        config=sections("study", "bootstrap", "prescriptions", "overtraining"),
    script:
        "../../scripts/overview.py"
