"""Statistics: pure functions from samples to estimates, verdicts and forecasts."""
