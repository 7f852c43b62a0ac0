"""Layer 9: what `poseglass train` does."""
