"""What a style costs a model of yours: the law of host costs, fitted to a run, and what follows."""
