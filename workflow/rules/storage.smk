"""Storage: archives of runs, for when the facility purges.

training/<run>/ → <storage.archive>/<study>/<run>.json, and the tar that it describes, undeclared: Snakemake deletes declared
outputs before it makes them anew. `gemstones restore` gets a run back.
"""


rule archive_run:
    """A run's milestone checkpoints, metrics and manifests, as far as it has got; nothing is written if nothing is new.

    Manifests are no inputs, or archiving would train.
    """
    output:
        record=f"{ARCHIVE}/{{run}}.json",
    log:
        "<results>/logs/storage/{run}.log",
    wildcard_constraints:
        run=one_of(RUNS),
    conda:
        "../../envs/training.yaml"
    params:
        manifest=last_manifest_of_run,
    script:
        "../../scripts/archive.py"


rule archive:
    """Archives of all that has been trained, in the folder that storage.archive names."""
    input:
        archives,
