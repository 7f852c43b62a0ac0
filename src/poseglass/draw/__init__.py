"""Floor 1: pictures of poses, heatmaps, data sets and figures. Every function returns a new picture."""
