"""Layer 5: image in, instances out, in image pixels."""
