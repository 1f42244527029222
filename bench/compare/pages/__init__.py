"""Tables, charts and pages of what is tracked: runs, releases and commits over time."""
