"""Statistics: pure functions from samples to estimates and verdicts."""
