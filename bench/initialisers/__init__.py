"""Which initialiser needs fewer steps to a target loss, measured for each library, and why."""
