"""Layer 0: the data types that every other package takes and returns. Needs NumPy and PyTorch, nothing of poseglass."""
