"""Layer 7: the training loop, with its losses, schedules and checkpoints."""
