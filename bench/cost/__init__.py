"""What each style costs a training step, by the number of arrays of a model."""
