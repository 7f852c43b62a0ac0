"""Camera: pinhole projection from millimetres in the world to pixels."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera without distortion; x right, y down, z forward.

    Args:
        focal_px: Focal length, pixels.
        center_xy: Principal point, pixels.
        rotation: ``(3, 3)``, world to camera.
        translation_mm: ``(3,)``, world origin in the camera frame.

    Example:
        >>> camera = Camera(100.0, (50.0, 40.0), np.eye(3), np.array([0.0, 0.0, 1000.0]))
        >>> camera.project(np.array([[100.0, 0.0, 0.0]])).tolist()
        [[60.0, 40.0]]
    """

    focal_px: float
    center_xy: tuple[float, float]
    rotation: np.ndarray
    translation_mm: np.ndarray

    def to_camera(self, xyz_mm: np.ndarray) -> np.ndarray:
        """Map world points ``(..., 3)`` to the camera frame, millimetres."""
        return np.asarray(xyz_mm) @ np.asarray(self.rotation).T + self.translation_mm

    def project(self, xyz_mm: np.ndarray) -> np.ndarray:
        """Map world points ``(..., 3)`` to pixels ``(..., 2)``; NaN where a point lies behind the camera."""
        points = self.to_camera(xyz_mm)
        depth = np.where(points[..., 2:] > 1.0, points[..., 2:], np.nan)
        return points[..., :2] / depth * self.focal_px + np.asarray(self.center_xy)
