"""Floor 4: image in, instances out, in image pixels."""
