"""The parent: what is measured when, in which processes, and what came of it."""
