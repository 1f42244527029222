"""Environments that uv builds: those of SPECs, and of entrants that declare their own."""
