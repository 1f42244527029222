"""Headlines, tables and charts of results, and their renderers."""
