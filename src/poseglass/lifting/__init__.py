"""Layer 8: 3D poses from 2D keypoints: RepNet, lifters trained with pairs, and the loop that trains them."""

from poseglass.lifting.lifter import Lifted, Lifter, LifterCard, load_lifter, save_lifter
from poseglass.lifting.people import LiftedPeople, lift_people

__all__ = ["Lifted", "LiftedPeople", "Lifter", "LifterCard", "lift_people", "load_lifter", "save_lifter"]
