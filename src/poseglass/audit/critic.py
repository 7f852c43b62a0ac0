"""A critic of poses, learnt from the labels that it judges: left and right swapped, one joint far from its place.

No rule tells a swapped pair from an unusual pose. So a small network learns the difference from the set itself: from
the poses as they are, and the same poses with a planted error (sides swapped for the whole body, the arms, the legs or
one pair; one joint moved). People are judged by a network that has not seen them (two folds; four in small sets), so
that errors in the labels do not teach their own judge. The planted errors of the unseen fold also measure, for this
set, which fraction of each kind is found, and they calibrate the network's scores to probabilities, by counting.

The idea is that of confident learning (Northcutt et al. 2021, https://arxiv.org/abs/1911.00068) with planted instead of
estimated noise. There are two limits. An error that mainly affects one group of people (all who are seen from behind)
looks like a convention of the set, and is found less often than the planted ones suggest. And what 2D cannot show is
not found: without a face, a skeleton hardly distinguishes a person seen from the front from one seen from behind,
whose sides are all swapped.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor, nn

from poseglass.audit.labels import Finding, Labels, known_keypoints
from poseglass.audit.records import finding
from poseglass.core.skeleton import Skeleton

MIN_PEOPLE = 150
"""With fewer people a critic would only memorise its examples."""

SMALL = 1000
"""With fewer people, three quarters of them train the critic of the last quarter, instead of half and half."""

MIN_KEYPOINTS = 5
"""Known keypoints that a person needs to be judged."""

MAX_TRAINED = 20_000
"""People used for training, sampled from larger sets; all are judged."""

MAX_SHARE = 0.1
"""No single error is assumed to be more frequent than this."""

PRIOR = {"swapped-body": 0.005, "swapped-arms": 0.005, "swapped-legs": 0.005, "swapped-part": 0.01}
MISPLACED_PRIOR = 0.02
"""Fraction of people assumed to have an error of a kind while the set is too small to estimate it."""

COUNTED = 5
"""People who must show an error before its fraction is estimated from the set instead of the prior; twice as many
for each misplaced joint: there are as many such errors as keypoints, and thus as many chances of a false alarm."""

IMPOSSIBLE = -30.0
"""Score of an error that a person cannot have, because keypoints are unknown."""

ARMS = ("shoulder", "elbow", "wrist", "hand")
LEGS = ("hip", "knee", "ankle", "foot", "heel", "toe")
FACE = ("eye", "ear", "mouth", "nose", "brow")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that is planted and looked for.

    Args:
        kind: A key of ``KINDS``.
        words: Name in the report, "the arms".
        order: K positions: the keypoint whose place each one takes; the identity for a moved joint.
        moved: Index of the joint that is moved, or -1.
    """

    kind: str
    words: str
    order: tuple[int, ...]
    moved: int = -1


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """The judgement of the critic.

    Args:
        faults: The C errors.
        rows: ``(n,)`` people judged.
        probability: ``(n, 1 + C)``: nothing wrong, then each error.
        power: For each kind, the fraction of planted errors found at probability ``sure``, measured on this set.
    """

    faults: tuple[Fault, ...]
    rows: np.ndarray
    probability: np.ndarray
    power: dict[str, float]


def faults_of(skeleton: Skeleton) -> tuple[Fault, ...]:
    """Return the errors that a skeleton can have."""
    k, flip = len(skeleton), skeleton.flip
    identity = np.arange(k)
    pairs = [i for i in range(k) if flip[i] > i]
    lower = [n.lower() for n in skeleton.keypoints]

    def members(words: tuple[str, ...]) -> list[int]:
        return [i for i in pairs if any(w in lower[i] for w in words)]

    def exchanged(which: list[int]) -> tuple[int, ...]:
        order = identity.copy()
        for i in which:
            order[i], order[flip[i]] = flip[i], i
        return tuple(int(o) for o in order)

    groups: list[tuple[str, str, list[int]]] = [("swapped-body", "the whole body", pairs)]
    arms, legs = members(ARMS), members(LEGS)
    groups += [("swapped-arms", "the arms", arms), ("swapped-legs", "the legs", legs)]
    groups += [("swapped-part", "the face", members(FACE)), ("swapped-part", "elbows and wrists", members(ARMS[1:]))]
    groups += [("swapped-part", "knees and ankles", members(LEGS[1:]))]
    if len(pairs) <= 16:
        groups += [("swapped-part", f"{skeleton.keypoints[i]} and {skeleton.keypoints[flip[i]]}", [i]) for i in pairs]
    faults: dict[tuple[int, ...], Fault] = {}
    for kind, words, which in groups:
        order = exchanged(which)
        if which and order not in faults:
            faults[order] = Fault(kind, words, order)
    moved = [Fault("joint-misplaced", n, tuple(identity.tolist()), i) for i, n in enumerate(skeleton.keypoints)]
    return (*faults.values(), *(moved if k >= MIN_KEYPOINTS else []))


def judge(
    skeleton: Skeleton,
    xy: np.ndarray,
    *,
    sure: float = 0.5,
    seed: int = 0,
    steps: int | None = None,
    mirror: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Verdict | None:
    """Judge N poses with a critic learnt from them.

    Args:
        skeleton: Names, bones and flip pairs; the pairs should have been checked before.
        xy: ``(N, K, 2)`` pixels, NaN = unknown.
        sure: Probability from which an error counts as found, for ``power``.
        seed: Seed of folds, training and planted errors; the result depends on nothing else.
        steps: Training steps, per fold; None takes 250 to 800, depending on the number of people.
        mirror: Also learn from flipped poses; not for an object that is not symmetric.
        progress: Called with a short text on each step.

    Returns:
        The verdict, or None if there are too few people.
    """
    faults = faults_of(skeleton)
    rows = np.flatnonzero(known_keypoints(xy).sum(1) >= MIN_KEYPOINTS)
    if len(rows) < MIN_PEOPLE or not faults:
        return None
    poses = torch.tensor(xy[rows], dtype=torch.float32)
    poses = poses - poses.nanmedian(1, keepdim=True).values
    rng = np.random.default_rng(seed)
    folds = 4 if len(rows) < SMALL else 2
    fold = rng.permutation(len(rows)) % folds
    generator = torch.Generator().manual_seed(seed)
    task = _Task(skeleton, faults, mirror=mirror)
    clean = torch.zeros(len(rows), 1 + len(faults))
    planted: list[Tensor] = []
    truth: list[Tensor] = []
    state = torch.random.get_rng_state()  # initial weights are drawn from the global stream: restore it
    try:
        for number in range(folds):
            if progress is not None:
                progress(f"learning what poses look like, {number + 1} of {folds}")
            learn, unseen = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            torch.manual_seed(seed + number)
            network = _train(task, poses[rng.permutation(learn)[:MAX_TRAINED]], generator, steps)
            clean[unseen] = _predict(task, network, poses[unseen])
            # A few planted errors of each kind are enough to calibrate.
            per_fault = max(100, 20_000 // len(faults))
            for fault in range(1, 1 + len(faults)):
                able = torch.from_numpy(rng.permutation(unseen[task.possible(poses[unseen])[:, fault].numpy()]))[
                    :per_fault
                ]
                what = torch.full((len(able),), fault)
                planted.append(_predict(task, network, task.plant(poses[able], what, generator)))
                truth.append(what)
    finally:
        torch.random.set_rng_state(state)
    score, spoilt = clean[:, 1:].double().numpy(), torch.cat(planted)[:, 1:].double().numpy()
    what, limits = torch.cat(truth).numpy(), (_priors(faults), _counted(faults))
    probability = _Weighing.measure(score, spoilt, what, *limits)(score)
    # Detection is counted on planted errors that were not used to estimate the frequencies.
    half = np.arange(len(what)) % 2 == 0
    found = 1 - _Weighing.measure(score, spoilt[half], what[half], *limits)(spoilt[~half])[:, 0] >= sure
    kinds = [f.kind for f in faults]
    of_kind = np.array(kinds, object)[what[~half] - 1] if len(what) else np.array([], object)
    power = {kind: float(found[of_kind == kind].mean()) for kind in dict.fromkeys(kinds) if (of_kind == kind).any()}
    return Verdict(faults, rows, probability, power)


def findings_of(labels: Labels, group: int, verdict: Verdict, *, sure: float) -> list[Finding]:
    """Return a finding for each person judged wrong with at least this probability."""
    people = labels.groups[group]
    names = np.array(people.skeleton.keypoints, object)
    found: list[Finding] = []
    wrong = 1.0 - verdict.probability[:, 0]
    for i in np.flatnonzero(wrong >= sure):
        best = int(verdict.probability[i, 1:].argmax())
        fault, row = verdict.faults[best], int(verdict.rows[i])
        known = people.known[row]
        # Both positions of a pair where one end is unknown: it changes as well.
        changed = np.array(fault.order) != np.arange(len(names))
        concerned = (
            changed & (known | known[list(fault.order)]) if fault.moved < 0 else np.arange(len(names)) == fault.moved
        )
        share = verdict.probability[i, 1 + best] / wrong[i]
        hedge = "" if share > 0.8 else f" (or another error: this one has {share:.0%} of the probability)"
        if fault.moved >= 0:
            text = f"{names[fault.moved]} is not where the other joints suggest{hedge}."
        else:
            text = f"Left and right of {fault.words} seem to be swapped{hedge}: swapped back, the pose is a usual one."
        found.append(finding(labels, group, row, fault.kind, "warning", wrong[i], text, concerned, wrong[i]))
    return found


class _Task:
    """Poses as features, and planting of errors, for a skeleton and its errors."""

    def __init__(self, skeleton: Skeleton, faults: tuple[Fault, ...], *, mirror: bool = True) -> None:
        k = len(skeleton)
        self.faults = faults
        self.flip = torch.from_numpy(skeleton.flip)
        self.orders = torch.tensor([tuple(range(k)), *(f.order for f in faults)])
        self.moved = torch.tensor([-1, *(f.moved for f in faults)])
        self.flips = mirror and bool((skeleton.flip != np.arange(k)).any())
        if k <= 20:
            pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        else:  # all pairs of a hand or a whole body would be thousands: bones, flip pairs and a ring
            chosen = {(min(a, b), max(a, b)) for a, b in skeleton.bone_indices.tolist()}
            chosen |= {(i, int(j)) for i, j in enumerate(skeleton.flip) if i < j} | {(i, i + 1) for i in range(k - 1)}
            pairs = sorted(chosen)
        self.first, self.second = torch.tensor(pairs).T
        self.width = 3 * k + 3 * len(pairs)
        # In a flipped pose, an error at the left wrist is one at the right wrist.
        at = {f.moved: i for i, f in enumerate(faults, 1) if f.moved >= 0}
        self.flipped_class = torch.tensor(
            [0, *(at[int(skeleton.flip[f.moved])] if f.moved >= 0 else i for i, f in enumerate(faults, 1))]
        )

    def possible(self, xy: Tensor) -> Tensor:
        """Return ``(n, 1 + C)`` bool: the error would change the pose, and does not equal another one."""
        known = ~xy[..., 0].isnan()
        columns = [torch.ones(len(xy), dtype=torch.bool)]
        effects: list[Tensor] = []
        for fault in self.faults:
            if fault.moved >= 0:
                columns.append(known[:, fault.moved])
                continue
            order = torch.tensor(fault.order)
            changed = order != torch.arange(xy.shape[1])
            effect = changed & (known | known[:, order])
            same = torch.zeros(len(xy), dtype=torch.bool)
            for earlier in effects:
                same |= (earlier == effect).all(1)
            effects.append(effect)
            columns.append(effect.any(1) & ~same)
        return torch.stack(columns, 1)

    def plant(self, xy: Tensor, what: Tensor, generator: torch.Generator) -> Tensor:
        """Return the poses with error ``what`` ``(n,)`` in each; 0 plants nothing."""
        n = len(xy)
        out = xy.gather(1, self.orders[what][..., None].expand(-1, -1, 2))
        size = _size(xy)
        length = size * (0.6 + 1.4 * torch.rand(n, generator=generator))
        angle = 2 * torch.pi * torch.rand(n, generator=generator)
        joint = self.moved[what].clamp_min(0)
        row = torch.arange(n)
        shift = torch.stack([length * angle.cos(), length * angle.sin()], -1)
        # One time in four it lands on its other side: both wrists on one hand, a common mistake.
        twin = xy[row, self.flip[joint]] + 0.1 * shift
        onto = (torch.rand(n, generator=generator) < 0.25) & ~twin[:, 0].isnan() & (self.flip[joint] != joint)
        place = torch.where(onto[:, None], twin, xy[row, joint] + shift)
        moves = self.moved[what] >= 0
        out[row, joint] = torch.where(moves[:, None], place, out[row, joint])
        return out

    def augment(self, xy: Tensor, generator: torch.Generator) -> Tensor:
        """Flip (with the flip pairs), rotate by up to 20 degrees, and drop some joints."""
        n = len(xy)
        if self.flips:
            flipped = torch.rand(n, generator=generator) < 0.5
            xy = torch.where(flipped[:, None, None], xy[:, self.flip] * torch.tensor([-1.0, 1.0]), xy)
        angle = (torch.rand(n, generator=generator) - 0.5) * 0.7
        rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 2, 2)
        xy = xy @ rotation
        some = torch.rand(n, 1, generator=generator) < 0.3
        gone = (torch.rand(xy.shape[:2], generator=generator) < 0.15) & some
        return xy.masked_fill(gone[..., None], torch.nan)

    def features(self, xy: Tensor) -> Tensor:
        """Return ``(n, K, 2)`` as ``(n, width)``: positions, which are known, directions and log distances of pairs."""
        known = ~xy[..., 0].isnan()
        places = xy - xy.nanmedian(1, keepdim=True).values
        places = torch.nan_to_num(places / _size(xy)[:, None, None]).clamp(-8, 8)
        between = places[:, self.first] - places[:, self.second]
        distance = between.norm(dim=-1)
        both = (known[:, self.first] & known[:, self.second]).float()
        direction = between / (distance[..., None] + 0.1) * both[..., None]
        return torch.cat(
            [places.flatten(1), known.float(), (distance + 0.05).log() * both, direction.flatten(1)], dim=1
        )


class _Critic(nn.Module):
    def __init__(self, inputs: int, outputs: int, width: int = 256) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
            for _ in range(2)
        )
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x)


def _size(xy: Tensor) -> Tensor:
    return (xy - xy.nanmedian(1, keepdim=True).values).norm(dim=-1).nanmedian(1).values.clamp_min(1e-6)


def _train(task: _Task, poses: Tensor, generator: torch.Generator, steps: int | None) -> _Critic:
    steps = int(min(800, 250 + len(poses) / 6)) if steps is None else steps
    batch = 512 if len(poses) >= 1000 else 256
    network = _Critic(task.width, 1 + len(task.faults))
    optimizer = torch.optim.AdamW(network.parameters(), 1.5e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    # As many examples of "nothing wrong" as of everything else together, roughly.
    share = torch.tensor([len(task.faults) * 0.4, *(1.0 if f.moved < 0 else 0.5 for f in task.faults)])
    for _ in range(steps):
        pick = torch.randint(len(poses), (batch,), generator=generator)
        xy = task.augment(poses[pick], generator)
        possible = task.possible(xy)
        what = torch.multinomial(share * possible, 1, generator=generator)[:, 0]
        scores = network(task.features(task.plant(xy, what, generator)))
        # Scores are of evidence: the frequencies of the examples are taken out of them.
        loss = nn.functional.cross_entropy((scores + share.log()).masked_fill(~possible, IMPOSSIBLE), what)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def _predict(task: _Task, network: _Critic, poses: Tensor) -> Tensor:
    """Return evidence ``(n, 1 + C)``, the mean of the pose and its flipped image; ``IMPOSSIBLE`` where it is."""
    parts = []
    for xy in poses.split(4096):
        scores = network(task.features(xy))
        if task.flips:
            flipped = network(task.features(xy[:, task.flip] * torch.tensor([-1.0, 1.0])))
            scores = (scores + flipped[:, task.flipped_class]) / 2
        scores = scores - scores[:, :1]
        parts.append(scores.masked_fill(~task.possible(xy), IMPOSSIBLE))
    return torch.cat(parts) if parts else torch.zeros(0, 1 + len(task.faults))


def _priors(faults: tuple[Fault, ...]) -> np.ndarray:
    """Return ``(C,)`` fractions: those of ``PRIOR``, spread over the errors of a kind."""
    kinds = [f.kind for f in faults]
    return np.array([PRIOR.get(kind, MISPLACED_PRIOR) / kinds.count(kind) for kind in kinds])


def _counted(faults: tuple[Fault, ...]) -> np.ndarray:
    return np.array([COUNTED if f.moved < 0 else 2 * COUNTED for f in faults])


@dataclass(frozen=True, slots=True, eq=False)
class _Weighing:
    """Converts scores to probabilities, from the labels and the planted errors of this set.

    Trained on labels that have errors, the critic understates its evidence: where 3 % of the labels have an error, what
    looks like a planted one is at most 33 times as frequent among planted ones. So only the order of the scores is
    used. How much more frequent a score is among poses with the planted error than among the labels is counted
    (isotonic regression), and the fraction of labels that have the error is bounded: over all thresholds, the fraction
    of labels above it, over that of planted ones above it, is never less (Blanchard et al. 2010, Semi-supervised
    novelty detection, section 4, https://jmlr.org/papers/v11/blanchard10a.html). The probability of an error is its
    fraction times that frequency, as the labels themselves are the denominator.
    """

    share: np.ndarray
    """``(C,)``."""
    edges: list[np.ndarray]
    """For each error the scores at which its frequency steps up."""
    ratios: list[np.ndarray]
    """The frequency from there on; one more than edges."""

    @classmethod
    def measure(
        cls, score: np.ndarray, spoilt: np.ndarray, what: np.ndarray, prior: np.ndarray, counted: np.ndarray
    ) -> "_Weighing":
        """Count on scores ``(n, C)`` of the labels and ``(m, C)`` of planted errors ``what`` ``(m,)``, from 1.

        For each error only the people who can have it are counted: fraction and frequency refer to them.
        """
        shares, edges, ratios = np.zeros(score.shape[1]), [], []
        for fault in range(score.shape[1]):
            able = score[:, fault] > IMPOSSIBLE / 2
            seen, planted = np.sort(score[able, fault]), np.sort(spoilt[what == fault + 1, fault])
            edge, ratio = np.zeros(0), np.zeros(1)
            if len(seen) and len(planted):
                shares[fault] = _share(seen, planted, float(prior[fault]), int(counted[fault]))
                edge, ratio = _frequency(seen, planted)
            edges.append(edge)
            ratios.append(ratio)
        return cls(shares, edges, ratios)

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """Return ``(n, 1 + C)`` probabilities of nothing wrong and of each error."""
        each = np.zeros(score.shape)
        for fault, (edge, ratio) in enumerate(zip(self.edges, self.ratios, strict=True)):
            each[:, fault] = self.share[fault] * ratio[np.searchsorted(edge, score[:, fault], side="right")]
        each[score <= IMPOSSIBLE / 2] = 0.0
        total = each.sum(1)
        # Bounds and counts are estimates: a sum near or above 1 is not a certainty.
        wrong = np.minimum(total, 1.0 - 0.1 / (1.0 + total))
        # Within a step of the frequency the score still orders, by a tiny amount, for the order of the report.
        wrong *= 1.0 - 1e-3 / (1.0 + np.exp(np.clip(score.max(1, initial=-30.0), -30.0, 30.0)))
        return np.concatenate([1.0 - wrong[:, None], each * (wrong / np.maximum(total, 1e-12))[:, None]], 1)


def _share(seen: np.ndarray, planted: np.ndarray, prior: float, counted: int) -> float:
    """Return an upper bound of the share of wrong labels, from rising scores; the prior if too few show the error."""
    n = len(seen)
    counts = np.unique(np.concatenate([np.arange(1, min(20, n) + 1), np.geomspace(1, max(n // 10, 2), 40).astype(int)]))
    caught = 1.0 - np.searchsorted(planted, seen[n - counts]) / len(planted)
    bounds = counts / n / np.maximum(caught, 1e-9)
    # The minimum is taken over upper confidence bounds (3 standard deviations of a count), or chance would put it at
    # the two or three most suspicious poses.
    least = int((bounds * (1 + 3 / np.sqrt(counts) + 1 / counts)).argmin())
    # In a clean set the single most suspicious pose gives the lowest bound. Only where several look equally like
    # planted ones does it lie further down, which indicates real errors.
    return float(min(bounds[least], MAX_SHARE if counts[least] >= counted else prior))


def _frequency(seen: np.ndarray, planted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where scores become more frequent among planted errors than among labels, and by how much."""
    values = np.concatenate([seen, planted])
    is_planted = np.concatenate([np.zeros(len(seen)), np.ones(len(planted))])
    weight = np.concatenate([np.full(len(seen), 1 / len(seen)), np.full(len(planted), 1 / len(planted))])
    order = np.lexsort((-is_planted, values))
    fitted = isotonic_regression(is_planted[order], weights=weight[order])
    blocks = np.asarray(fitted.blocks)
    mass = np.add.reduceat((is_planted * weight)[order], blocks[:-1])
    count = np.add.reduceat(1.0 - is_planted[order], blocks[:-1])
    # One label more than was counted: without any, the frequency would be unbounded.
    ratio = np.maximum.accumulate(mass * len(seen) / (count + 1.0))
    return values[order][blocks[1:-1]], ratio
