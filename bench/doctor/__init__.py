"""`bakeoff doctor`: what this machine offers, and what makes its timings unreliable."""
