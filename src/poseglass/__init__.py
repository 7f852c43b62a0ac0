"""poseglass: keypoint networks that train, measure, shrink and ship."""
