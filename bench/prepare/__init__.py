"""What was asked for becomes what to measure: one way for every command."""
