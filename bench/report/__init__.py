"""Tables, findings and charts of results, and their renderers."""
