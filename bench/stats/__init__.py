"""Pure functions from samples to what can be said about them."""
