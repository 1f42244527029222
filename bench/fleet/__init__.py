"""`bakeoff matrix`: many comparisons, one after another on this machine or on a Ray cluster."""
