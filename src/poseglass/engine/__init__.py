"""Floor 5: training, checkpoints, evaluation, recipes and reports."""
