"""``poseglass predict --lift``: 3D poses in ``poses.json``, beside the annotated images, and on a page to turn them."""

import base64
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from poseglass.cli.journal import Journal
from poseglass.cli.poses_file import Least, people_of
from poseglass.core.files import write_bytes
from poseglass.core.image import TooLargeError, read_with_levels
from poseglass.core.instances import Instances
from poseglass.core.levels import WhiteLevels
from poseglass.core.page import render_page
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted
from poseglass.drawing.palette import pose_colors
from poseglass.drawing.pose import draw, resized
from poseglass.drawing.scene3d import MOST_BESIDE, draw_beside
from poseglass.lifting.lifter import Lifter
from poseglass.lifting.people import LiftedPeople, lift_people

PAGE_IMAGES = 24
"""Number of images on the page."""

PAGE_PX = 640
"""Longest side of an image on the page."""

POOR = 0.15
"""A pose whose points lie farther from it than this share of the person's size is said to fit badly."""


@dataclass(slots=True)
class Lifting:
    """Lifts the people of each image, and counts.

    Args:
        lifter: Lifts them.
        least: Which keypoints count as known.
        whole: Number of people who were lifted.
        few: Number of people with too few known keypoints.
        crowded: Number of images with more people than are drawn beside them.
        guessed: Number of keypoints that are drawn hollow beside images.
        poor: Those whose points do not fit the pose, as "image: person".
        spread_mm: Mean expected error of each person.
        critic: What the lifter's critic says of each pose, if it has one.
    """

    lifter: Lifter
    least: Least
    whole: int = 0
    few: int = 0
    crowded: int = 0
    guessed: int = 0
    poor: list[str] = field(default_factory=list)
    spread_mm: list[float] = field(default_factory=list)
    critic: list[float] = field(default_factory=list)

    def of(self, people: Instances) -> LiftedPeople:
        """Lift the people of one image."""
        return lift_people(self.lifter, self.least.of(people), min_score=self.least.score)

    def add(self, name: str, records: list[dict[str, Any]], people: LiftedPeople) -> None:
        """Add the poses to the records of an image for ``poses.json``, and count them."""
        self.whole += len(people)
        self.few += people.few
        keypoints, lifted = people.skeleton.keypoints, people.lifted
        for record in records:
            record["keypoints_3d"] = None
        for at, row in enumerate(people.row.tolist()):
            record = records[row]
            record["keypoints_3d"] = {
                key: [round(float(v), 1) for v in xyz] for key, xyz in zip(keypoints, lifted.xyz_mm[at], strict=True)
            }
            residual = float(lifted.residual[at])
            record["lift_residual"] = round(residual, 4) if math.isfinite(residual) else None
            if not residual <= POOR:  # NaN is not to be trusted either
                self.poor.append(f"{name}: {record['number']}")
            if lifted.spread_mm is not None:
                spread = lifted.spread_mm[at]
                record["spread_3d_mm"] = {
                    key: round(float(v), 1) for key, v in zip(keypoints, spread, strict=True)
                }  # fmt: skip
                self.spread_mm.append(float(spread.mean()))
            if lifted.critic is not None:
                record["lift_critic"] = round(float(lifted.critic[at]), 4)
                self.critic.append(record["lift_critic"])

    def beside(self, image: np.ndarray, people: LiftedPeople) -> np.ndarray:
        """Return an annotated image with the 3D poses beside it, the first ``MOST_BESIDE`` of them."""
        self.crowded += len(people.row) > MOST_BESIDE
        numbers = [row + 1 for row in people.row.tolist()]
        # NaN is not to be trusted either
        doubtful = [n for n, residual in zip(numbers, people.lifted.residual, strict=True) if not residual <= POOR]
        self.guessed += int(people.guessed[:MOST_BESIDE].sum())
        return draw_beside(
            image, people.lifted.xyz_mm, numbers, people.skeleton, doubtful=doubtful, guessed=people.guessed
        )

    def lines(self) -> list[str]:
        """Return what is to be said at the end."""
        name = self.lifter.card.name
        said = [
            f"lifted {counted(self.whole, 'pose')} to 3D with {name!r}: millimetres relative to the pelvis, x right, y "
            "down, z away. Everybody has the mean size of the training people, as an image does not tell it."
        ]
        if self.spread_mm:
            said.append(
                f"The network expects its keypoints to be {np.median(self.spread_mm):.0f} mm from the truth on average "
                "(median over people); spread_3d_mm in poses.json has each."
            )
        if self.critic:
            said.append(
                f"The critic of {name!r} gives the poses {np.median(self.critic):.3g} (median over people), lower for "
                "poses like real ones; lift_critic in poses.json has each."
            )
        if self.crowded:
            images = counted(self.crowded, "image")
            said.append(
                f"Beside {images}, only the first {MOST_BESIDE} people are drawn in 3D; poses.json has all, and "
                "poses_3d.html all of the images that it shows."
            )
        if self.guessed:
            said.append(
                f"{counted(self.guessed, 'keypoint')} of the drawn poses in 3D {'is' if self.guessed == 1 else 'are'} "
                f"hollow: not found in the image with {self.least}, and guessed from the others."
            )
        if self.few:
            said.append(
                f"Not lifted: {self.few:,} with fewer than {self.lifter.least_known} keypoints of {self.least} "
                f"that {name!r} knows."
            )
        if self.poor:
            shown = ", ".join(self.poor[:8]) + (f" and {len(self.poor) - 8:,} more" if len(self.poor) > 8 else "")
            said.append(
                f"Do not trust the 3D poses of {shown}: projected, they miss their own keypoints by more than "
                f"{POOR:.0%} of the person's size, or these are all at one place."
            )
        return said


@dataclass(frozen=True, slots=True)
class Page:
    """Which images ``poses_3d.html`` shows.

    Args:
        shown: Number of images that it shows; 0 wrote no page.
        lifted: Number of images with poses that can be turned.
        skipped: Names of images before the last one shown that are too large for it, or cannot be read again.
    """

    shown: int
    lifted: int
    skipped: tuple[str, ...] = ()

    def in_words(self) -> str:
        """Return of how many images it is."""
        if self.shown == self.lifted:
            return counted(self.shown, "image")
        first = "" if self.shown + len(self.skipped) == self.lifted else "the first "
        return f"{first}{self.shown:,} of {counted(self.lifted, 'image')}"


def write_page(
    skeleton: Skeleton,
    lifter: Lifter,
    journal: Journal,
    files: Iterable[Path],
    out: Path,
    *,
    white: float | WhiteLevels | None,
    least: Least,
) -> Page:
    """Write ``poses_3d.html``, the first images with poses that can be turned, and return which they are.

    The images are read again, one at a time, so that a run that was resumed shows those done before too.

    Args:
        skeleton: Of the 2D poses.
        lifter: Whose poses the journal holds.
        journal: Holds the poses.
        files: The images.
        out: Output folder.
        white: White level of the images.
        least: Which keypoints are drawn.
    """
    shown: list[dict[str, Any]] = []
    skipped: list[str] = []
    total = 0
    for file, _, records in journal.entries(files):
        if not any(record.get("keypoints_3d") for record in records):
            continue
        total += 1
        if len(shown) == PAGE_IMAGES:
            continue
        try:
            image, _ = read_with_levels(file, white=white)
        except (TooLargeError, ValueError, OSError):  # too large for a page, or removed since
            skipped.append(file.name)
            continue
        small, to_small = resized(image, min(PAGE_PX, max(image.shape[:2])))
        people = least.of(people_of(skeleton, records)).moved(to_small)
        drawn = draw(small, people, min_score=least.score, boxes=True, numbers=True)
        done, data = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
        photo = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}" if done else ""
        poses = [_on_page(record, lifter) for record in records if record.get("keypoints_3d")]
        shown.append({"name": file.name, "photo": photo, "people": poses})
    page = Page(len(shown), total, tuple(skipped))
    if not shown:
        return page
    joints, bones = pose_colors(lifter.skeleton)
    ends = lifter.skeleton.bone_indices.tolist()
    values = {
        "title": "Poses in three dimensions",
        "about": f"Lifted by {lifter.card.name} from the keypoints in the images. Depth is an estimate, and everybody "
        "has the mean size of the training people.",
        "data": {
            "images": shown,
            "joints": [_css(color) for color in joints],
            "bones": [[a, b, _css(color)] for (a, b), color in zip(ends, bones, strict=True)],
        },
    }
    write_bytes(out / "poses_3d.html", render_page("poses_3d.html", values).encode())
    return page


def _css(color: np.ndarray) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in color)


def _on_page(record: dict[str, Any], lifter: Lifter) -> dict[str, Any]:
    """Return what the page shows of a person."""
    xyz = np.array([record["keypoints_3d"][name] for name in lifter.skeleton.keypoints])
    residual = record["lift_residual"]
    trust = (
        "Do not trust it: all keypoints found are at one place, which fits any pose."
        if residual is None
        else f"Projected, the pose is {residual:.1%} of the person's size from the keypoints found."
    )
    spread = record.get("spread_3d_mm")
    if spread:
        most = max(spread, key=spread.__getitem__)
        trust = (
            f"Expected error: {np.mean(list(spread.values())):.0f} mm on average, {spread[most]:.0f} mm at the "
            f"{most.replace('_', ' ')}. {trust}"
        )
    if "lift_critic" in record:
        trust = f"{trust} The critic gives it {record['lift_critic']:.3g}, lower for poses like real ones."
    return {
        "number": record["number"],
        "xyz_mm": xyz.tolist(),
        "middle": ((xyz.min(0) + xyz.max(0)) / 2).round(1).tolist(),
        "trust": trust,
    }
