"""The judge: whether a file is an entrant like the others, and what is wrong where it is not."""
