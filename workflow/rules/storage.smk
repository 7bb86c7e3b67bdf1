"""Storage: archives of finished runs, for when the facility purges.

training/<run>/ → <storage.archive>/<study>/<run>.json, and the tar that it describes, undeclared: Snakemake deletes declared
outputs before it makes them anew. `gemstones restore` gets a run back.
"""


rule archive_run:
    """A run's milestone checkpoints, metrics and manifests; nothing is written if nothing is new."""
    input:
        job_of_run,
    output:
        record=f"{ARCHIVE}/{{run}}.json",
    log:
        "<results>/logs/storage/{run}.log",
    wildcard_constraints:
        run=one_of(LAST_JOBS),
    conda:
        "../../envs/training.yaml"
    params:
        manifest=manifest_of_run,
    script:
        "../../scripts/archive.py"


rule archive:
    """Archives of all runs, in the folder that storage.archive names."""
    input:
        archives,
