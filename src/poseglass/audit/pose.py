"""Compare the poses of a set with each other: bones out of proportion, wrong flip pairs, the observer's sides.

Everything is estimated from the labels themselves with robust statistics: most of them must be right.
"""

from dataclasses import replace

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree

from poseglass.audit.labels import Finding, Labels, People, known_keypoints
from poseglass.audit.records import finding
from poseglass.core.sides import name_pairs
from poseglass.core.skeleton import Skeleton

MIN_PEOPLE_BONES = 30
"""With fewer people the usual length of a bone is not known well enough."""

MIN_PEOPLE_FLIP = 40
"""With fewer people, flipped poses have too few others to compare with."""

NOT_SYMMETRIC = 1.3
"""Flipped poses that are farther from the nearest poses than this, times as far as the poses are from each other,
are of an object that is not symmetric. For people it is 0.95 to 1.0, with wrong flip pairs 1.05 to 1.3 and with the
best pairs again 1.0; for drawings of a house with a chimney on one side 4.5 to 5.6 (``benchmarks/audit_sides.py``)."""

BONE_LIMIT = 5.0
"""Robust standard deviations above the usual logarithm of a bone's proportion."""


def center_and_size(xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the median position ``(N, 1, 2)`` and the median distance to it ``(N,)`` of poses ``(N, K, 2)``.

    A single wrong joint hardly changes either. NaN where nothing is known.
    """
    known = known_keypoints(xy)
    usable = known.any(1)
    center, size = np.full((len(xy), 1, 2), np.nan), np.full(len(xy), np.nan)
    center[usable] = np.nanmedian(xy[usable], axis=1, keepdims=True)
    size[usable] = np.nanmedian(np.linalg.norm(xy[usable] - center[usable], axis=-1), axis=1)
    return center, size


def with_bones(people: People) -> People:
    """Return the people with bones in their skeleton: estimated if it has none.

    Close joints are joined: the tree of least total usual length.
    """
    skeleton = people.skeleton
    if skeleton.bones or len(people) < MIN_PEOPLE_BONES or len(skeleton) < 3:
        return people
    _, size = center_and_size(people.xy)
    sample = people.xy[np.flatnonzero(size > 0)[:2000]] / size[size > 0][:2000, None, None]
    k = len(skeleton)
    usual = np.zeros((k, k))
    for i in range(k):
        for j in range(i + 1, k):
            length = np.linalg.norm(sample[:, i] - sample[:, j], axis=-1)
            length = length[np.isfinite(length)]
            if len(length) >= MIN_PEOPLE_BONES:
                usual[i, j] = np.median(length) + 1e-3
    tree = np.argwhere(minimum_spanning_tree(usual).toarray() > 0)
    bones = tuple((skeleton.keypoints[i], skeleton.keypoints[j]) for i, j in tree)
    learnt = Skeleton(skeleton.name, skeleton.keypoints, bones, skeleton.sigmas, skeleton.flip_pairs)
    return replace(people, skeleton=learnt)


def check_bones(labels: Labels, group: int) -> list[Finding]:
    """Return bones that are far too long for the person they belong to, and bones without length.

    A bone may look short (it points at the camera), so only long ones are wrong: its length over its usual length, over
    the same ratio of the person's other bones, is compared with its own robust spread.
    """
    people = labels.groups[group]
    bones = people.skeleton.bone_indices
    found: list[Finding] = []
    if not len(bones) or not len(people):
        return found
    ends = people.xy[:, bones]
    length = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=-1)
    _, size = center_and_size(people.xy)
    names = people.skeleton.keypoints
    enough = people.known.sum(1) >= 4
    with np.errstate(invalid="ignore", divide="ignore"):
        zero: np.ndarray = (length < np.fmax(1e-3, 1e-3 * size[:, None])) & enough[:, None]
    # From the side the two hips may coincide: only bones along a limb always have a length.
    zero &= people.skeleton.flip[bones[:, 0]] != bones[:, 1]
    for row in np.flatnonzero(zero.any(1)):
        where = np.unique(bones[zero[row]])
        pairs = ", ".join(f"{names[i]} and {names[j]}" for i, j in bones[zero[row]])
        text = f"{pairs} lie on the same pixel. If one is not known, set its visibility to 0."
        found.append(finding(labels, group, int(row), "zero-bone", "warning", 0.95, text, where, zero[row].sum()))
    counted = np.isfinite(length).sum(1)
    if (counted >= 4).sum() < MIN_PEOPLE_BONES:
        return found
    z, ratio = bone_scores(length)
    impossible = (z > BONE_LIMIT) & (ratio > 2.0)
    for row in np.flatnonzero(impossible.any(1)):
        worst = int(np.nanargmax(np.where(impossible[row], ratio[row], np.nan)))
        a, b = (names[i] for i in bones[worst])
        text = (
            f"{a} to {b} is {ratio[row, worst]:.1f} times as long as the other bones suggest "
            f"({z[row, worst]:.0f} robust standard deviations)."
        )
        where = np.unique(bones[impossible[row]])
        sure = 1.0 - 0.2 * np.exp(-(z[row, worst] - BONE_LIMIT) / 3.0)
        found.append(
            finding(labels, group, int(row), "impossible-bone", "warning", sure, text, where, ratio[row, worst])
        )
    return found


def bone_scores(length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how unusually long each bone is: robust z-score and ratio to what is expected, ``(N, M)`` each.

    Args:
        length: ``(N, M)`` pixels, NaN where unknown. People with fewer than 4 known bones get NaN.
    """
    logs = np.log(np.where(length > 0, length, np.nan))
    usable = np.isfinite(logs).sum(1) >= 4
    z, ratio = np.full(length.shape, np.nan), np.full(length.shape, np.nan)
    logs = logs[usable]
    typical = np.zeros(length.shape[1])
    person = np.zeros((len(logs), 1))
    for _ in range(3):  # alternate: size of each person, length of each bone
        person = np.nanmedian(logs - typical, axis=1, keepdims=True)
        typical = _median_columns(logs - person)
    # The expectation uses only the other bones: the upper third, as foreshortening shortens and never lengthens.
    relative = logs - typical
    expected = np.empty_like(relative)
    for bone in range(relative.shape[1]):
        others = np.delete(relative, bone, axis=1)
        expected[:, bone] = np.nanquantile(others, 0.67, axis=1)
    excess = relative - expected
    center = _median_columns(excess)
    # The spread above the median; below it there is foreshortening.
    spread = 1.4826 * _median_columns(np.where(excess > center, excess - center, np.nan))
    z[usable] = (excess - center) / np.fmax(spread, 0.05)
    ratio[usable] = np.exp(excess - center)
    return z, ratio


def _median_columns(values: np.ndarray) -> np.ndarray:
    out = np.zeros(values.shape[1])
    for column in range(values.shape[1]):
        known = values[np.isfinite(values[:, column]), column]
        out[column] = np.median(known) if len(known) else 0.0
    return out


def check_flip(labels: Labels, group: int) -> list[Finding]:
    """Return flip pairs that the data contradict, or that flipped poses are unlike all of the set whatever the pairs.

    Flipped, with its pairs swapped, a pose should be like poses in the set. Poses are flipped with the given pairs and
    with others (a pair removed, a keypoint paired with another one, what the names say), and the distance to the
    nearest poses of the set is compared, pose by pose: a pair is wrong if another choice brings the flipped poses
    significantly nearer, and near enough: as near as poses of the set are to each other. If no choice does
    (``NOT_SYMMETRIC``), the object is not symmetric, or is always seen from one side, and nothing is reported about its
    pairs: even those of correct labels fit no better.
    """
    people = labels.groups[group]
    skeleton = people.skeleton
    k = len(skeleton)
    _, size = center_and_size(people.xy)
    known = people.known
    rows = np.flatnonzero((known.sum(1) >= min(k, max(4, k // 2))) & (size > 0))
    if len(rows) < MIN_PEOPLE_FLIP or not skeleton.mirrors:
        return []
    rng = np.random.default_rng(0)
    rows = rng.permutation(rows)
    center, size = center_and_size(people.xy[rows])
    poses = (people.xy[rows] - center) / size[:, None, None]
    kept = _thinned(poses[:3000])
    rows, poses = rows[kept], poses[kept]
    if len(rows) < MIN_PEOPLE_FLIP:
        return []
    bank, query = poses[:1500], poses[: min(len(poses), 300)] * np.array([-1.0, 1.0])
    given = skeleton.flip
    tested: dict[bytes, np.ndarray] = {}

    def distance(order: np.ndarray) -> np.ndarray:
        if order.tobytes() not in tested:
            tested[order.tobytes()] = _nearest(query[:, order], bank)
        return tested[order.tobytes()]

    best, path = given.copy(), []
    for _ in range(k):
        current = distance(best)
        gains: list[tuple[float, float, np.ndarray]] = []
        for order in _alternatives(best, skeleton, all_pairs=k <= 30):
            gain = current - distance(order)
            sure = gain.mean() / (gain.std() / np.sqrt(len(gain)) + 1e-9)
            if sure > 6.0 and gain.mean() > 0.03 * current.mean():
                gains.append((float(gain.mean()), float(sure), order))
        if not gains:
            break
        gain, sure, order = max(gains, key=lambda g: g[0])
        path.append(sure)
        best = order
    usual = _nearest(poses[: len(query)], bank, skip=1).mean()
    ratio = distance(best).mean() / max(float(usual), 1e-9)
    if ratio > NOT_SYMMETRIC:
        example = int(rows[int(distance(best).argmax())])
        text = (
            f"Flipped, with left and right swapped, these poses are unlike all poses of the set: {ratio:.1f} times as "
            "far from the nearest ones as the poses are from each other. Either the object is not symmetric (a part "
            "of it is always on one side) or it is always seen from one side. Labels and flip pairs may well be "
            "right. If a flipped image of it cannot occur, turn flipping off: flip_probability = 0.0 in "
            "random_affine, and flip_test = false under [evaluate]; --ignore not-symmetric then skips this finding."
        )
        return [finding(labels, group, example, "not-symmetric", "warning", 1 - 0.5 / ratio, text, value=float(ratio))]
    if (best == given).all():
        return []
    before, after = distance(given).mean(), distance(best).mean()
    found: list[Finding] = []
    done: set[int] = set()
    for i in np.flatnonzero(best != given):
        if i in done:
            continue
        done |= {int(i), int(given[i]), int(best[i])}
        name, now, better = (skeleton.keypoints[j] for j in (i, given[i], best[i]))
        is_now = f"is paired with {now}" if now != name else "is not paired"
        should = f"pairing it with {better} fits" if better != name else "leaving it unpaired fits"
        text = (
            f"In a flip {name} {is_now}, but {should} the data better: with all such changes flipped poses come "
            f"{1 - after / before:.0%} nearer to real ones ({max(path):.0f} standard errors). Flipping in training "
            "would teach wrong sides. Fix the names or the flip pairs."
        )
        names = tuple(dict.fromkeys((name, now, better)))
        sure = 1.0 - 0.2 * float(np.exp(-max(path) / 6.0))
        found.append(
            Finding("flip-pair", "error", sure, text, keypoints=names, value=float(after / before), count=len(people))
        )
    return found


def _thinned(poses: np.ndarray) -> np.ndarray:
    """Return the indices of poses without near-duplicates: frames of a video, images that a set holds twice.

    A pose is dropped that is nearer to one kept before it than 5 % of the median distance between two poses.
    """
    kept: list[int] = []
    mean = mean_square(poses, poses)
    finite = mean[np.isfinite(mean) & ~np.eye(len(poses), dtype=bool)]
    if not len(finite):
        return np.arange(len(poses))
    least = (0.05**2) * float(np.median(finite))
    for i in range(len(poses)):
        if not len(kept) or mean[i, kept].min() > least:
            kept.append(i)
    return np.array(kept, dtype=np.int64)


def _alternatives(order: np.ndarray, skeleton: Skeleton, *, all_pairs: bool) -> list[np.ndarray]:
    k = len(order)

    def repaired(base: np.ndarray, i: int, j: int) -> np.ndarray:
        new = base.copy()
        for end in (i, j):
            new[new[end]], new[end] = new[end], end
        new[i], new[j] = j, i
        return new

    def undone(base: np.ndarray, i: int) -> np.ndarray:
        new = base.copy()
        new[new[i]], new[i] = new[i], i
        return new

    by_name = np.arange(k)
    for i, j in name_pairs(skeleton.keypoints):
        by_name[i], by_name[j] = j, i
    options = [by_name, np.arange(k)]
    paired = [i for i in range(k) if order[i] > i]
    options += [undone(order, i) for i in paired]
    if all_pairs:
        for i in range(k):
            for j in range(i + 1, k):
                if order[i] == j:
                    continue
                single = repaired(order, i, j)
                options.append(single)
                # Two pairs crossed: (a, b), (c, d) to (a, d), (c, b) leave none without a partner.
                a, b = int(order[i]), int(order[j])
                if a not in (i, j) and b not in (i, j):
                    options.append(repaired(single, a, b))
    return [o for o in {o.tobytes(): o for o in options}.values() if (o != order).any()]


def _nearest(query: np.ndarray, bank: np.ndarray, count: int = 3, *, skip: int = 0) -> np.ndarray:
    """Return the root mean square distance of shared keypoints to the nearest poses: ``(Q,)``, in sizes.

    ``skip`` leaves out so many of the very nearest: 1 where each query is itself in the bank.
    """
    nearest = np.sqrt(np.sort(mean_square(query, bank), axis=1)[:, skip : skip + count])
    return np.where(np.isfinite(nearest).all(1), nearest.mean(1), 3.0)


def mean_square(query: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Return the mean squared distance of the shared keypoints of each query and each pose of the bank: ``(Q, B)``.

    It is infinite for two that share fewer than 60 % of the query's keypoints.
    """
    q_known, b_known = known_keypoints(query), known_keypoints(bank)
    q, b = np.nan_to_num(query), np.nan_to_num(bank)
    q_weight, b_weight = q_known.astype(np.float32), b_known.astype(np.float32)
    shared = q_weight @ b_weight.T
    total = np.zeros_like(shared)
    for axis in (0, 1):
        x, y = q[..., axis].astype(np.float32), b[..., axis].astype(np.float32)
        total += (x**2) @ b_weight.T + q_weight @ (y**2).T - 2 * (x @ y.T)
    enough = shared >= np.maximum(0.6 * q_known.sum(1)[:, None], 1)
    return np.where(enough, np.maximum(total, 0) / np.maximum(shared, 1), np.inf)


def check_observer_sides(labels: Labels, group: int) -> list[Finding]:
    """Return whether left and right are the observer's instead of the person's, as judged from faces.

    A person whose nose and both eyes are labelled faces the camera: the left shoulder is on the right of the image,
    relative to the body's upward direction.
    """
    people = labels.groups[group]
    lower = [n.lower().replace(" ", "_") for n in people.skeleton.keypoints]
    need = ("nose", "left_eye", "right_eye", "left_shoulder", "right_shoulder")
    if not all(n in lower for n in need):
        return []
    nose, left_eye, right_eye, left, right = (lower.index(n) for n in need)
    raw, xy = people.raw, people.xy
    seen = (raw[:, [nose, left_eye, right_eye], 2] == 2).all(1) & np.isfinite(xy[:, [left, right]]).all((1, 2))
    if seen.sum() < 20:
        return []
    up = xy[:, [nose, left_eye, right_eye]].mean(1) - xy[:, [left, right]].mean(1)
    across = xy[:, left] - xy[:, right]
    right_way = (up[:, 0] * across[:, 1] - up[:, 1] * across[:, 0])[seen] > 0
    share = float(right_way.mean())
    if share > 0.3:
        return []
    text = (
        f"Of {int(seen.sum())} people with a visible face only {share:.0%} have their left shoulder on the right of "
        "the image: left and right seem to be the observer's. Swap the names if they should be the person's own."
    )
    return [Finding("observer-sides", "error", 1.0 - share, text, value=share, count=len(people))]
