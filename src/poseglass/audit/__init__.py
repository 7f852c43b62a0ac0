"""Layer 8: what is wrong with a set of labels."""
