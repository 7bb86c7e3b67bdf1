"""The corpus, shards and tiny runs of the tests of training."""

from tests.unit.training.conftest import build, corpus, shards, train

__all__ = ["build", "corpus", "shards", "train"]
