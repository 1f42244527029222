"""The parts that are equal for all entrants: contract, data, loss, training, sampling, weights."""
