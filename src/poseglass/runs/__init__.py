"""Layer 9: training runs, what `poseglass train` does."""
