"""What must be equal for all entrants: contract, config, data, loss, training, sampling, weights."""
