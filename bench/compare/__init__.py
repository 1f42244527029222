"""Tracking: runs compared, releases and commits measured in turns, history, bisect."""
