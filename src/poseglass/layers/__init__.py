"""Layer 1: blocks used by two or more papers."""
