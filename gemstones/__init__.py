"""Scaling-law studies of language models over width and depth: suite, training, losses, laws, prescriptions, figures."""

from importlib.metadata import version

__version__ = version("gemstones")
