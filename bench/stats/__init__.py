"""Statistics: pure functions from samples to estimates and verdicts.

Rows whose intervals are corrected together are a *family*.
"""
