"""How far from what the machine can do: its limit, and what each trick gains on its own."""
