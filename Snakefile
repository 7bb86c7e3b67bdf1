"""The study as one static DAG: suite → training → losses → laws → prescriptions → figures.

snakemake -c2                                    the mini study, on a CPU
snakemake -c2 --configfile config/released.yaml  the paper's laws and figures, from the authors' losses
snakemake -c2 --configfile config/lr_transfer.yaml  one learning rate rule for extreme shapes, on a CPU
snakemake -c2 --configfile config/simulation.yaml  how often the intervals of laws hold the truth
snakemake --profile frontier                     the full study
"""

import signal

from snakemake.utils import min_version

min_version("9.27")

# Slurm's warning before the walltime reaches every process of a job, and would end the Snakemake inside it.
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

# Loaded only if no other config was given: Snakemake merges mappings, and `mini` would leak into the other studies.
if "study" not in config:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


pathvars:
    results=RESULTS,


# What the rule `overview` writes; absolute, since Snakemake looks beside the Snakefile.
report: str(Path(RESULTS, "overview.rst").resolve())


wildcard_constraints:
    shape=r"\d+x\d+",
    step=r"\d+",
    anchor=r"\d+",
    fit=one_of(study.fits),
    figure=one_of(study.figures),
    scenario=one_of(study.simulation.scenarios if study.simulation else []),
    part=r"\d+",


# Not of a dry run, which is to be quick.
onstart:
    look_before_start()


localrules:
    all,
    suite,
    train,
    laws,
    prescribe,
    figures,
    archive,  # where the archive is
    ledger,  # where sacct is


include: "workflow/rules/suite.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/storage.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/losses.smk"
include: "workflow/rules/laws.smk"
include: "workflow/rules/simulation.smk"
include: "workflow/rules/prescriptions.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/cluster.smk"


rule all:
    """The whole study."""
    default_target: True
    input:
        "<results>/suite/shapes.csv",
        losses_files,
        law_files,
        prescription_files,
        expand("<results>/figures/{figure}.png", figure=study.figures),
        "<results>/overview.rst",
        ledger_files,


rule train:
    """All training, up to the last step of every run."""
    input:
        last_manifests,


rule laws:
    """All fits, and the tables that set them side by side; of a simulation, the coverage of intervals."""
    input:
        law_files,


rule prescribe:
    """All prescriptions and costs."""
    input:
        prescription_files,


rule figures:
    """All figures."""
    input:
        expand("<results>/figures/{figure}.png", figure=study.figures),
