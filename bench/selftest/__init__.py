"""Proof that the engine sees what it should: differences of known size, planted on purpose."""
