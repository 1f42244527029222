"""The worker: a child process that measures, and answers over a pipe."""
