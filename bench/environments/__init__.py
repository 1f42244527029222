"""Environments that uv builds: of entrants that declare their own, and what all such share."""
