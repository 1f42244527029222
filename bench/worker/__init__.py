"""The child process: it measures what it is told to, over a pipe."""
