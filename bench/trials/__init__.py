"""Trials of what the project says: simulated data, planted differences, runs of identical arms."""
