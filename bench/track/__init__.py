"""Tracking: what became slower between two environments, releases, days or runs.

`ab` and `compare` compare two sides, `bisect` searches between two, `history` compares many; the
results of all are run files, which `bench.report.documents` puts into words.
"""
