"""People that a pose network found, in three dimensions."""

from dataclasses import dataclass

import numpy as np

from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed
from poseglass.lifting.lifter import Lifted, Lifter


@dataclass(frozen=True, slots=True, eq=False)
class LiftedPeople:
    """The people of an image who could be lifted.

    Args:
        skeleton: Of the 3D poses, the lifter's.
        row: ``(M,)`` int64: which of the people each is.
        lifted: Their M poses.
        few: Number of people who have too few known keypoints.
        guessed: ``(M, K)`` bool: keypoints that the people's skeleton has, and that were not known.
    """

    skeleton: Skeleton
    row: np.ndarray
    lifted: Lifted
    few: int
    guessed: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def check_mappable(lifter: Lifter, skeleton: Skeleton, weights: str) -> None:
    """Raise unless enough keypoints of a skeleton have the names of the lifter's.

    Raises:
        ValueError: They have not.
    """
    common = [name for name in lifter.skeleton.keypoints if name in skeleton.keypoints]
    if len(common) < lifter.least_known:
        if common and lifter.least_known == len(lifter.skeleton):
            lacking = [name for name in lifter.skeleton.keypoints if name not in common]
            raise ValueError(
                f"{lifter.card.name!r} was trained with all of its {len(lifter.skeleton)} keypoints known, and "
                f"{weights!r} does not predict {listed(lacking)}. 'lift-people' lifts people with unknown keypoints, "
                "as RepNet does if its recipe has network.unknown = true."
            )
        advice = "Give weights of people, or a skeleton whose keypoints have these names."
        raise ValueError(
            f"{lifter.card.name!r} needs at least {lifter.least_known} of the keypoints "
            f"{', '.join(lifter.skeleton.keypoints)}, and {weights!r} predicts "
            f"{f'only {listed(common)}' if common else 'none'} of them. {advice}"
        )


def lift_people(lifter: Lifter, people: Instances, *, min_score: float = 0.0) -> LiftedPeople:
    """Lift the people of an image; keypoints are matched by name, and those that their skeleton lacks are unknown.

    Args:
        lifter: Lifts them.
        people: In image pixels.
        min_score: Keypoints of a lower score count as unknown.

    Raises:
        ValueError: The skeletons share too few keypoints, or ``min_score`` is not from 0 to 1.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be from 0 to 1, got {min_score!r}.")
    check_mappable(lifter, people.skeleton, people.skeleton.name)
    mapped = people.in_skeleton(lifter.skeleton)
    there = mapped.known & (mapped.score >= min_score)
    points = np.where(there[..., None], mapped.xy, np.nan)
    enough = np.flatnonzero(there.sum(1) >= lifter.least_known)
    guessed = ~there[enough] & np.isin(lifter.skeleton.keypoints, people.skeleton.keypoints)
    return LiftedPeople(lifter.skeleton, enough, lifter.lift(points[enough]), len(people) - len(enough), guessed)
