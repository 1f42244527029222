"""Trials of what the project says: planted differences on real runs.

The plants are for other tools, too: `bench.trials.plants` has steps with a known difference.
"""
