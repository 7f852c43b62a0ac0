"""poseglass: keypoint networks that train, measure, shrink and ship."""

__version__ = "0.1.0"
