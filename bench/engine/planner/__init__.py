"""The planner that is to replace the one of `bench.engine.jobs` and its five neighbours.

It stands beside them until it is as good: `tests/engine/compare_planners.py` runs both.
"""
