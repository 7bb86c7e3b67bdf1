"""Training: token shards once, then each run as a chain of jobs that fit the planned walltime.

config → training/data/manifest.json; shards → training/<run>/steps/<step>.json: "this run has reached this step".
Checkpoints and metrics live beside the manifests, undeclared, since Snakemake deletes the outputs of a failed job.
"""


rule data:
    """The corpus as memory-mapped token shards, with its tokenizer and a manifest of hashes.

    Finished files are kept beside the shards, undeclared, so that a job that is stopped goes on where it was.
    """
    output:
        manifest="<results>/training/data/manifest.json",
        tokenizer="<results>/training/data/tokenizer.json",
        shards=directory("<results>/training/data/shards"),
    log:
        "<results>/logs/training/data.log",
    conda:
        "../../envs/training.yaml"
    threads: 8
    params:
        data=config["data"],
        vocabulary_size=config["suite"]["vocabulary_size"],
    script:
        "../../scripts/data.py"


rule train_main:
    """One job of a main run."""
    input:
        data="<results>/training/data/manifest.json",
        after=jobs_before,
    output:
        "<results>/training/{run}/steps/{step}.json",
    log:
        "<results>/logs/training/{run}/{step}.log",
    wildcard_constraints:
        run=r"\d+x\d+",
    conda:
        "../../envs/training.yaml"
    threads: config["training"]["processes"]
    resources:
        **PARTITION,
        nodes=job_nodes,
        processes=job_processes,
        runtime=job_minutes,
        settings=TRAINING_SETTINGS,
        # A profile's launcher starts as many processes on as many nodes; in the end each of them is the trainer itself, for signals.
        launcher="exec",
    params:
        job=job_text,
    shell:
        "nodes={resources.nodes} processes={resources.processes} data={input.data}; {resources.launcher}"
        " gemstones train {params.job:q} {input.after} --data {input.data} --until {wildcards.step}"
        " --output {output} --settings {resources.settings:q} 2> {log}"


use rule train_main as train_replicate with:
    wildcard_constraints:
        run=r"\d+x\d+-seed_\d+",


use rule train_main as train_lr_ablation with:
    wildcard_constraints:
        run=r"\d+x\d+-lr_ablation",


use rule train_main as train_lr_transfer with:
    wildcard_constraints:
        run=r"\d+x\d+-lr-\d+",


use rule train_main as train_cooldown with:
    wildcard_constraints:
        run=r"\d+x\d+-cooldown-\d+",


use rule train_main as train_cooldown_ablation with:
    wildcard_constraints:
        run=r"\d+x\d+-cooldown-\d+-\d+",
