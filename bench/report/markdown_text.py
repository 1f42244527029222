"""The former name of `bench.report.markdown`."""

from bench.report.markdown import markdown, markdown_table, sentence

__all__ = ["markdown", "markdown_table", "sentence"]
