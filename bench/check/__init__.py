"""The judge: checks that a file is an entrant like the others, and says what is wrong."""
