"""Limits of the proof of equality that comes before any timing."""

LOSS_TOLERANCE = 1e-6
"""Relative difference to the reference's loss."""
GRADIENT_TOLERANCE = 1e-5
"""Norm of the difference to the reference's gradient, relative to its norm, for each array."""
TRAJECTORY_TOLERANCE = 1e-5
"""Difference to the baseline's loss in nats per character, in each of ten AdamW steps."""
