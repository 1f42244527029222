"""What a run says, for people."""
