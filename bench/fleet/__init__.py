"""`bakeoff matrix`: the runs of a plan, one after another here or on the nodes of a Ray cluster."""
