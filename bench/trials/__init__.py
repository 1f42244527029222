"""Planted differences, for trials of this project (`results/selftest/`) and of other tools."""
