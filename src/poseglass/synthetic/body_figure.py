"""Figures and outfits: the build of a synthetic person and what it wears, sampled from a generator."""

from dataclasses import dataclass

import numpy as np

MATERIALS = ("skin", "face", "hair", "upper", "lower", "shoe", "sole", "sock", "accent")
"""Materials of a surface; the renderer stores the index."""
SKIN, FACE, HAIR, UPPER, LOWER, SHOE, SOLE, SOCK, ACCENT = range(len(MATERIALS))


@dataclass(frozen=True, slots=True)
class Figure:
    """The build of a person: proportions relative to an average adult of the same stature.

    Args:
        stature_mm: Standing height.
        head: Size of the head.
        leg: Length of thighs and shanks.
        arm: Length of arms.
        shoulder: Breadth of the shoulders.
        hip: Breadth of the hips.
        waist: Girth of the waist.
        girth: Girth of everything else.
        bust: 0 flat, 1 full.
        muscle: Bulge of calf, biceps and shoulder.
    """

    stature_mm: float
    head: float = 1.0
    leg: float = 1.0
    arm: float = 1.0
    shoulder: float = 1.0
    hip: float = 1.0
    waist: float = 1.0
    girth: float = 1.0
    bust: float = 0.0
    muscle: float = 1.0


@dataclass(frozen=True, slots=True)
class Outfit:
    """What a person wears; lengths of sleeves and legs are in limb segments: 1 to the elbow or knee, 2 to the end.

    Args:
        top: Whether the torso is covered above the hem.
        hem: Height of the top's lower edge above the hips, fractions of stature; the bottom begins there.
        sleeve: 0 to 2.
        sleeve_loose: Factor added to the arm's girth where there is a sleeve.
        leg: 0 to 2.
        leg_loose: As for sleeves.
        skirt: Length as a fraction of the thigh, 0 none.
        one_piece: The bottom is made of the top's cloth (leotard, unitard).
        sock: Height as a fraction of the shank.
        shoes: Whether the person wears shoes.
        gloves: Whether the hands are covered.
        hair: "none", "short", "long", "tail", "bun" or "wild".
        hat: "none", "cap", "helmet" or "band".
        neckline: Depth of skin below the neck, fractions of stature.
        colors: ``(len(MATERIALS), 3)`` RGB in [0, 1].
        patterns: One name of ``texture.PATTERNS`` per material.
    """

    top: bool
    hem: float
    sleeve: float
    sleeve_loose: float
    leg: float
    leg_loose: float
    skirt: float
    one_piece: bool
    sock: float
    shoes: bool
    gloves: bool
    hair: str
    hat: str
    neckline: float
    colors: np.ndarray
    patterns: tuple[str, ...]


def sample_figure(rng: np.random.Generator) -> Figure:
    """Sample a build: women, men and, one in eight, children."""
    spread = lambda s: float(np.exp(s * rng.standard_normal()))  # noqa: E731
    if rng.random() < 0.12:
        youth = float(rng.uniform(0.2, 1.0))
        return Figure(
            1720.0 - 640.0 * youth, head=1.0 + 0.34 * youth, leg=(1.0 - 0.07 * youth) * spread(0.03),
            arm=(1.0 - 0.04 * youth) * spread(0.03), shoulder=(1.0 - 0.02 * youth) * spread(0.04),
            hip=0.97 * spread(0.04), waist=1.04 * spread(0.06), girth=0.97 * spread(0.08), muscle=0.6,
        )  # fmt: skip
    heavy = spread(0.11)
    if rng.random() < 0.45:
        return Figure(
            1640.0 * spread(0.04), head=1.0 * spread(0.03), leg=spread(0.03), arm=0.98 * spread(0.03),
            shoulder=0.93 * spread(0.04), hip=1.06 * spread(0.05), waist=0.90 * heavy * spread(0.05),
            girth=0.95 * heavy, bust=float(rng.uniform(0.2, 1.0)), muscle=0.7 * spread(0.2),
        )  # fmt: skip
    return Figure(
        1770.0 * spread(0.04), head=0.97 * spread(0.03), leg=spread(0.03), arm=1.01 * spread(0.03),
        shoulder=1.04 * spread(0.05), hip=0.97 * spread(0.04), waist=1.0 * heavy * spread(0.06), girth=1.03 * heavy,
        muscle=1.1 * spread(0.25),
    )  # fmt: skip


_SKINS = np.array(
    [(250, 215, 190), (240, 195, 165), (226, 176, 140), (205, 150, 112), (170, 112, 78), (122, 78, 54), (82, 54, 42)]
) / 255.0  # fmt: skip
_HAIRS = np.array(
    [(28, 22, 20), (60, 40, 28), (98, 66, 40), (160, 118, 70), (205, 175, 120), (140, 70, 40), (150, 150, 150)]
)


def _cloth_color(rng: np.random.Generator) -> np.ndarray:
    """Return dark, white, grey, denim, khaki or a colour, as distributed in wardrobes, not in the colour cube."""
    kind = rng.random()
    if kind < 0.27:
        color = np.full(3, rng.uniform(0.03, 0.16)) + rng.uniform(-0.02, 0.05, 3)
    elif kind < 0.42:
        color = np.full(3, rng.uniform(0.75, 0.97)) + rng.uniform(-0.04, 0.02, 3)
    elif kind < 0.52:
        color = np.full(3, rng.uniform(0.25, 0.7)) + rng.uniform(-0.03, 0.03, 3)
    elif kind < 0.66:
        color = np.array([0.20, 0.27, 0.42]) * rng.uniform(0.5, 1.6)
    elif kind < 0.74:
        color = np.array([0.60, 0.52, 0.38]) * rng.uniform(0.5, 1.4)
    else:
        hue, value, gray = rng.uniform(0, 6), rng.uniform(0.35, 1.0), rng.uniform(0.0, 0.45)
        wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
        color = value * (gray + (1 - gray) * wheel)
    return np.clip(color, 0.02, 0.98)


def sample_outfit(rng: np.random.Generator, figure: Figure) -> Outfit:
    """Sample clothes: street, sports and gymnastics."""
    one_piece = rng.random() < (0.22 if figure.bust > 0 else 0.05)
    top = one_piece or rng.random() > (0.04 if figure.bust > 0 else 0.13)
    sleeve = float(rng.choice([0.0, 0.3, 0.55, 0.8, 1.9, 2.0], p=[0.24, 0.1, 0.28, 0.08, 0.12, 0.18])) if top else 0.0
    leg = 0.0 if one_piece and rng.random() < 0.75 else float(
        rng.choice([0.05, 0.35, 0.7, 1.0, 1.5, 2.0], p=[0.05, 0.13, 0.15, 0.1, 0.07, 0.5])
    )  # fmt: skip
    tight = one_piece or rng.random() < 0.3
    hem = float(rng.choice([-0.07, -0.03, 0.02, 0.075], p=[0.25, 0.35, 0.3, 0.1]) if top else rng.uniform(0.03, 0.065))
    colors, patterns = np.zeros((len(MATERIALS), 3)), ["plain"] * len(MATERIALS)
    tone = rng.uniform(0, len(_SKINS) - 1)
    low = int(min(tone, len(_SKINS) - 2))
    skin = _SKINS[low] + (tone - low) * (_SKINS[low + 1] - _SKINS[low])
    skin = np.clip(skin * rng.uniform(0.88, 1.08) + rng.uniform(-0.02, 0.02, 3), 0, 1)
    dark_skin = tone > 3.6
    hair_color = _HAIRS[rng.integers(0, 2 if dark_skin else len(_HAIRS))] / 255.0 * rng.uniform(0.7, 1.2)
    colors[[SKIN, FACE]] = skin
    colors[HAIR] = np.clip(hair_color, 0.02, 0.95)
    colors[UPPER], colors[LOWER] = _cloth_color(rng), _cloth_color(rng)
    if one_piece or rng.random() < 0.08:
        colors[LOWER] = colors[UPPER]
    colors[SHOE], colors[SOLE] = _cloth_color(rng), np.full(3, rng.uniform(0.1, 0.9))
    colors[SOCK] = np.full(3, rng.uniform(0.8, 0.97) if rng.random() < 0.65 else 0.08)
    colors[ACCENT] = _cloth_color(rng)
    patterns[SKIN], patterns[FACE], patterns[HAIR] = "skin", "face", "strands"
    if figure.bust == 0 and figure.head < 1.08 and rng.random() < 0.35:
        patterns[FACE] = "bearded"
    cloth = ("plain", "plain", "logo", "stripes", "hoops", "check", "blotches", "panels", "print")
    patterns[UPPER] = str(rng.choice(cloth))
    lower = ("plain", "plain", "plain", "side_stripe", "blotches", "check", "panels")
    patterns[LOWER] = patterns[UPPER] if one_piece else str(rng.choice(lower))
    patterns[SHOE] = "panels"
    hairs, hats = ("none", "short", "long", "tail", "bun", "wild"), ("none", "cap", "helmet", "band")
    long_hair = (0.02, 0.2, 0.25, 0.3, 0.18, 0.05) if figure.bust > 0 else (0.12, 0.7, 0.05, 0.03, 0.0, 0.1)
    return Outfit(
        top=bool(top), hem=hem,
        sleeve=sleeve, sleeve_loose=0.0 if tight else float(rng.uniform(0.05, 0.5)),
        leg=leg, leg_loose=0.0 if tight and rng.random() < 0.7 else float(rng.uniform(0.05, 0.45)),
        skirt=float(rng.uniform(0.4, 1.0)) if figure.bust > 0 and not one_piece and rng.random() < 0.12 else 0.0,
        one_piece=bool(one_piece), sock=float(rng.choice([0.0, 0.12, 0.4, 0.85], p=[0.4, 0.35, 0.15, 0.1])),
        shoes=bool(rng.random() < (0.15 if one_piece else 0.8)), gloves=bool(rng.random() < 0.06),
        hair=str(rng.choice(hairs, p=long_hair)), hat=str(rng.choice(hats, p=[0.84, 0.07, 0.04, 0.05])),
        neckline=float(rng.uniform(0.0, 0.05)), colors=colors, patterns=tuple(patterns),
    )  # fmt: skip
