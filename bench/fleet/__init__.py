"""`bakeoff matrix`: many comparisons, here one after the other or on many machines at a time."""
