"""Preparation of tasks from a request, in the same way for every command."""
