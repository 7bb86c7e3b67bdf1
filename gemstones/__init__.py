"""Scaling-law studies of language models over width and depth: suite, training, losses, laws, prescriptions, figures."""

__version__ = "0.1.0"
