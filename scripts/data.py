"""Rule `data`: the corpus as token shards, with their tokenizer and manifest."""

from gemstones import logs
from gemstones.study import Data
from gemstones.training.data import build

logs.start(snakemake)  # noqa: F821
build(
    Data(**snakemake.params.data),  # noqa: F821
    snakemake.params.vocabulary_size,  # noqa: F821
    manifest=snakemake.output.manifest,  # noqa: F821
    tokenizer=snakemake.output.tokenizer,  # noqa: F821
    shards=snakemake.output.shards,  # noqa: F821
)
