"""Rule `data`: the corpus as token shards, with their tokenizer and manifest."""

from gemstones import logs
from gemstones.study import Data
from gemstones.training.shards import build

logs.start(snakemake)
build(
    Data(**snakemake.params.data),
    snakemake.params.vocabulary_size,
    manifest=snakemake.output.manifest,
    tokenizer=snakemake.output.tokenizer,
    shards=snakemake.output.shards,
    processes=snakemake.threads,
)
