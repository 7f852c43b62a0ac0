"""Layer 7: the loop, and what it keeps."""
