"""Layer 8: find errors in a set of labels."""
