"""The parent process: chooses what to measure next, runs the workers, collects the results."""
