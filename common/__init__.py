"""What must be equal for all entrants: contract, data, loss, training, sampling, weights."""
