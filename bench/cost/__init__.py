"""What each style costs a training step: the law of host costs by the arrays of a model."""
