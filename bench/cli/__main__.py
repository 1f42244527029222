"""`python -m bench.cli`, where the `bakeoff` command is not on the path."""

from bench.cli import run

run()
