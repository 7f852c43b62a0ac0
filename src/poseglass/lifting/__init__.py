"""Layer 8: 3D poses from 2D keypoints."""
