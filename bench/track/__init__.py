"""Tracking: what became slower between two environments, releases, days or runs.

`ab` and `compare` compare two sides, `bisect` searches between two, `history` compares many: each
has a `document` of its results, which are run files.
"""
