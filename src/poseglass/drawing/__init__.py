"""Layer 1: images of poses, heatmaps, data sets and figures. Every function returns a new image."""
