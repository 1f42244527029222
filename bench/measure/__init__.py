"""How samples are taken: worker processes, the jobs they read, the probes they use."""
