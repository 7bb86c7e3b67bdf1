"""Storage: archives of runs, for when the facility purges.

training/<run>/ → <storage.archive>/<study>/<run>.{tar,json}, undeclared: only what is in the folders says what is new.
`gemstones restore` gets a run back.
"""


rule archive:
    """All that has been trained, as far as it has got, in the folder that storage.archive names; trains nothing."""
    log:
        "<results>/logs/archive.log",
    conda:
        "../../envs/training.yaml"
    params:
        archive=archive_or_exit,
        training=f"{RESULTS}/training",
    script:
        "../../scripts/archive.py"
