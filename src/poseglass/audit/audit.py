"""The audit of labels: what is wrong, or probably wrong, with a set of keypoints, as a list of findings.

Records are checked against rules (``audit_records``), images by reading them (``audit_images``), poses against each
other (``audit_pose``) and by a critic learnt from the set itself (``audit_critic``).

What to expect of a clean set: no broken rules. The statistical kinds state a probability, and ``sure`` is the lowest
that is reported: for synthetic people without errors at most one in 600 was reported, for 341 people of COCO 5 %, most
of them unusual poses (small sets give more). Of planted swaps of arms or legs, 3 % each, it found three in four.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from poseglass.audit.critic import MIN_KEYPOINTS, MIN_PEOPLE, SMALL, Verdict, findings_of, judge
from poseglass.audit.few import judge_few
from poseglass.audit.images import check_images, find_duplicates, find_leaks
from poseglass.audit.labels import KINDS, Finding, Labels, known_keypoints
from poseglass.audit.pose import (
    MIN_PEOPLE_BONES,
    MIN_PEOPLE_FLIP,
    check_bones,
    check_flip,
    check_observer_sides,
    with_bones,
)
from poseglass.audit.records import check_records
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted

DEFAULT_SURE = 0.5
"""Lowest probability of a statistical finding that is reported."""

COMPARED = 0.9
"""Share of planted swaps that comparing poses must find for its findings to be taken beside the critic's."""

_IMAGE_KINDS = ("image-missing", "image-unreadable", "image-size", "image-named-twice", "duplicate-image", "leakage")


@dataclass(frozen=True, slots=True, eq=False)
class KindSummary:
    """One line of the audit's table.

    Args:
        kind: A key of ``KINDS``.
        count: Number of people or images concerned.
        share: Fraction of all people, or of all images.
        of: "people" or "images".
        power: Fraction of planted errors of this kind that the critic found in this set, or None.
        worst: The most certain finding, or None if there is none.
    """

    kind: str
    count: int
    share: float
    of: str
    power: float | None
    worst: Finding | None


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The result of an audit.

    Args:
        labels: The labels that were read; images of the findings come from it.
        findings: Ordered by kind as in ``KINDS``, then by certainty.
        notes: What could not be checked and why, a sentence each.
        power: For each kind that the critic looks for, the fraction of planted errors that it found in this set.
        unjudged: Skeletons with too few people to judge left and right person by person with any certainty: finding
            nothing does not mean that nothing is wrong.
    """

    labels: Labels
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    power: dict[str, float]
    unjudged: tuple[str, ...] = ()

    def summary(self) -> list[KindSummary]:
        """Return a line for each kind that was found or that the critic looked for, in the order of ``KINDS``."""
        lines: list[KindSummary] = []
        for kind in KINDS:
            found = [f for f in self.findings if f.kind == kind]
            if not found and kind not in self.power:
                continue
            count = sum(f.count for f in found)
            images = kind in _IMAGE_KINDS
            total = len(self.labels.image_files) if images else self.labels.num_people
            worst = max(found, key=lambda f: f.sure) if found else None
            share = min(count / max(total, 1), 1.0)
            lines.append(KindSummary(kind, count, share, "images" if images else "people", self.power.get(kind), worst))
        return lines


def audit(
    labels: Labels,
    *,
    sure: float = DEFAULT_SURE,
    read_images: bool = True,
    against: Labels | None = None,
    ignore: tuple[str, ...] = (),
    seed: int = 0,
    steps: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Audit:
    """Look for everything in ``KINDS``.

    Args:
        labels: From ``read_coco_leniently`` or ``labels_of``.
        sure: Lowest probability of a statistical finding that is reported, in (0, 1].
        read_images: Whether to read the image files; otherwise images are not checked.
        against: Another set; images in both are reported as leakage.
        ignore: Kinds that are not reported.
        seed: Seed of the critic.
        steps: Training steps of the critic, per fold; None takes 250 to 800, depending on the number of people.
        progress: Called with a short text on each step.

    Raises:
        ValueError: ``sure`` is not in (0, 1], or a kind to ignore is unknown.
    """
    if not 0 < sure <= 1:
        raise ValueError(f"sure must be above 0 and at most 1 (a probability), got {sure}.")
    unknown = sorted(set(ignore) - set(KINDS))
    if unknown:
        raise ValueError(f"Unknown kind of finding: {', '.join(unknown)}. Known: {', '.join(KINDS)}.")
    tell = progress or (lambda _: None)
    unjudged: list[str] = []
    found, notes, power = list(labels.findings), list(labels.notes), {}
    labels.groups = [with_bones(g) for g in labels.groups]
    for group, people in enumerate(labels.groups):
        tell(f"{people.skeleton.name}: rules")
        found += check_records(labels, group)
        if any(f.kind == "normalised" for f in found):
            notes.append("Poses were not compared: the coordinates are not in pixels.")
            continue
        found += check_bones(labels, group)
        tell(f"{people.skeleton.name}: flip pairs")
        wrong_flips = check_flip(labels, group)
        found += wrong_flips + check_observer_sides(labels, group)
        verdict = None
        symmetric = not any(f.kind == "not-symmetric" for f in wrong_flips)
        if symmetric and wrong_flips:
            notes.append(f"{people.skeleton.name}: sides were not judged one by one: fix the flip pairs first.")
        else:
            verdict = judge(
                people.skeleton, people.xy, sure=sure, seed=seed, steps=steps, mirror=symmetric,
                progress=lambda text, name=people.skeleton.name: tell(f"{name}: {text}"),
            )  # fmt: skip
            notes += _too_few(people.skeleton, people.xy)
            sided = (people.skeleton.flip != np.arange(len(people.skeleton))).any() and people.known.any()
            if verdict is None and sided:
                unjudged.append(people.skeleton.name)
                verdict = judge_few(people.skeleton, people.xy, mirror=symmetric)
                if verdict is not None:
                    notes.append(
                        f"{people.skeleton.name}: {len(verdict.rows)} annotations are too few for the critic, so "
                        "swapped sides were judged by comparing the poses with each other; the column 'finds' shows "
                        "how many planted swaps that finds."
                    )
        if verdict is not None:
            found += findings_of(labels, group, verdict, sure=sure)
            power |= verdict.power
            if MIN_PEOPLE <= len(verdict.rows) < SMALL:
                notes.append(
                    f"{people.skeleton.name}: learnt from {len(verdict.rows)} annotations, the critic may report "
                    f"unusual poses as wrong: check its findings. It is more reliable with {SMALL:,} and more."
                )
            if len(verdict.rows) >= MIN_PEOPLE:
                more = _seen_by_comparing(labels, group, verdict, sure, mirror=symmetric)
                done = {f.person for f in found if f.kind.startswith("swapped")}
                found += [f for f in more[0] if f.person not in done]
                power |= more[1]
            notes += _blind(people.skeleton.name, power, verdict)
    found += _not_found_by_rules(labels, found)
    if not any(people.known.any() for people in labels.groups):
        text = f"No keypoint is labelled in {counted(len(labels.image_files), 'image')}: there is nothing to learn."
        found.append(Finding("nothing-labelled", "error", 1.0, text))
    if read_images:
        tell(f"reading {len(labels.image_files):,} images")
        broken, looks = check_images(labels)
        found += broken + find_duplicates(labels, looks)
        if against is not None:
            tell(f"reading {len(against.image_files):,} images of {against.name}")
            found += find_leaks(labels, looks, against, check_images(against)[1])
    order = {kind: i for i, kind in enumerate(KINDS)}
    kept = [f for f in found if f.kind not in ignore and f.sure >= sure]
    kept.sort(key=lambda f: (order[f.kind], -f.sure))
    power = {kind: share for kind, share in power.items() if kind not in ignore}
    return Audit(labels, tuple(kept), tuple(dict.fromkeys(notes)), power, tuple(unjudged))


def _not_found_by_rules(labels: Labels, found: list[Finding]) -> list[Finding]:
    """Return what a reader rejects and no rule has found, so that labels that pass an audit can be read."""
    covered = {(f.kind, f.image_index, f.annotation) for f in found}
    folded = {f.kind for f in found if f.count > 1}
    return [
        f for f in labels.refused if f.kind not in folded and (f.kind, f.image_index, f.annotation) not in covered
    ]  # fmt: skip


def _too_few(skeleton: Skeleton, xy: np.ndarray) -> list[str]:
    name = skeleton.name
    if len(skeleton) < MIN_KEYPOINTS:
        return [f"{name}: poses of {counted(len(skeleton), 'keypoint')} are not compared; this needs {MIN_KEYPOINTS}."]
    usable = int((known_keypoints(xy).sum(1) >= MIN_KEYPOINTS).sum())
    notes = []
    for need, what in (
        (MIN_PEOPLE_BONES, "proportions of bones"),
        (MIN_PEOPLE_FLIP, "flip pairs"),
        (MIN_PEOPLE, "left and right, and misplaced keypoints, one by one"),
    ):
        if usable < need:
            notes.append(
                f"{name}: {counted(usable, 'annotation')} with {MIN_KEYPOINTS} known keypoints or more: too few to "
                f"judge {what} (at least {need})."
            )
    return notes


def _seen_by_comparing(
    labels: Labels, group: int, verdict: Verdict, sure: float, *, mirror: bool
) -> tuple[list[Finding], dict[str, float]]:
    """Return what comparing poses with each other finds far better than the critic, with the power of that.

    Of objects that look alike it finds nearly every planted swap, which a critic taught by some hundred of them does
    not; of people in any pose it finds little, and nothing is taken from it.
    """
    people = labels.groups[group]
    if len(verdict.rows) >= SMALL:
        return [], {}
    few = judge_few(people.skeleton, people.xy, mirror=mirror)
    if few is None:
        return [], {}
    better = {k: p for k, p in few.power.items() if p >= COMPARED and p > verdict.power.get(k, 0.0)}
    return [f for f in findings_of(labels, group, few, sure=sure) if f.kind in better], better


def _blind(name: str, power: dict[str, float], verdict: Verdict) -> list[str]:
    blind = [KINDS[kind] for kind in verdict.power if power[kind] < 0.15]
    if not blind:
        return []
    return [
        f"{name}: fewer than 15 % of the planted errors were found for: {'; '.join(blind)}. In these poses such an "
        "error looks like a usual pose; finding none does not mean that there is none."
    ]
