"""Layer 0: the nouns every other package takes and returns. Numpy and torch, nothing of poseglass."""
