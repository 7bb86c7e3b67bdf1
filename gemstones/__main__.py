"""`python -m gemstones`, as `gemstones`."""

from gemstones.cli import app

app()
