"""The loss of training longer than the optimum at the same FLOPs."""

from gemstones import laws, logs
from gemstones.files import write_parquet
from gemstones.prescriptions.overtraining import overtraining
from gemstones.study import load

logs.start(snakemake)
study = load(snakemake.config)
law = laws.read(snakemake.input.law)
costs = overtraining(law, study.overtraining.flops, study.suite, study.overtraining.fit)
write_parquet(costs, snakemake.output[0], dict(snakemake.params.items()))
