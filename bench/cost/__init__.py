"""Costs of each style for a training step, by the model's number of arrays."""
