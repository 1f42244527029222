"""Preparation of tasks from what was asked for: one way for every command."""
