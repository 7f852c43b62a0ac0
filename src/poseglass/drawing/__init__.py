"""Layer 1: images of poses, heatmaps, data sets and plots. Every function returns a new image."""
