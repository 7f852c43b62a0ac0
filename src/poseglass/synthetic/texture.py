"""Texture: procedural cloth, skin, hair and faces, and the noise for backgrounds."""

from collections.abc import Callable

import cv2
import numpy as np

from poseglass.synthetic.body_figure import FACE, HAIR, MATERIALS, Outfit

SIZE = 96
"""Side of a body's textures, texels. u runs once around the limb with the front in the middle, v down the limb."""


def noise(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    cells: tuple[int, ...],
    gains: tuple[float, ...],
    *,
    periodic: bool = False,
) -> np.ndarray:
    """Return smooth noise ``(H, W)`` float32 about 0: random grids of several cell counts, upsampled and added.

    Args:
        rng: Source of randomness.
        size_wh: Size of the result.
        cells: Cells across the larger side, per octave.
        gains: Half range per octave.
        periodic: The right edge continues at the left one, the lower at the upper; for squares whose side is a multiple
            of every cell count.
    """
    width, height = size_wh
    total = np.zeros((height, width), np.float32)
    for count, gain in zip(cells, gains, strict=True):
        unit = max(width, height) / count
        if periodic:
            turn = np.arange(-1, count + 1) % count
            grid = rng.random((count, count), np.float32)[turn[:, None], turn]
            edge = round(unit)
            big = cv2.resize(grid, (width + 2 * edge, height + 2 * edge), interpolation=cv2.INTER_LINEAR)
            total += (big[edge:-edge, edge:-edge] - 0.5) * (2.0 * gain)
            continue
        grid = rng.random((max(2, round(height / unit) + 1), max(2, round(width / unit) + 1)), np.float32)
        total += cv2.resize((grid - 0.5) * (2.0 * gain), (width, height), interpolation=cv2.INTER_LINEAR)
    return total


Painter = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]


def _base(color: np.ndarray) -> np.ndarray:
    return np.tile(color.astype(np.float32), (SIZE, SIZE, 1))


def _plain(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    return _base(color)


def _stripes(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    image, period = _base(color), int(rng.integers(6, 24))
    image[:, np.arange(SIZE) % period < period * rng.uniform(0.2, 0.6)] = second
    return image


def _hoops(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    image, period = _base(color), int(rng.integers(5, 32))
    image[np.arange(SIZE) % period < period * rng.uniform(0.2, 0.6)] = second
    return image


def _check(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    period = int(rng.integers(6, 20))
    line = (np.arange(SIZE) % period < period * 0.45).astype(np.float32)
    mix = ((line[:, None] + line[None]) * 0.5)[..., None]
    return (color * (1 - mix) + second * mix).astype(np.float32)


def _blotches(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    mix = (noise(rng, (SIZE, SIZE), (6, 16), (0.7, 0.5), periodic=True) > rng.uniform(-0.1, 0.25))[..., None]
    return np.where(mix, second, color).astype(np.float32)


def _panels(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    image = _base(color)
    side = int(rng.integers(4, 16))
    image[:, SIZE // 4 - side // 2 : SIZE // 4 + side // 2] = second
    image[:, 3 * SIZE // 4 - side // 2 : 3 * SIZE // 4 + side // 2] = second
    if rng.random() < 0.5:
        image[: int(rng.integers(8, 40))] = second
    return image


def _side_stripe(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    image, wide = _base(color), int(rng.integers(2, 6))
    image[:, SIZE // 4 - wide // 2 : SIZE // 4 + wide // 2 + 1] = second
    image[:, 3 * SIZE // 4 - wide // 2 : 3 * SIZE // 4 + wide // 2 + 1] = second
    return image


def _logo(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    """A mark or a number on the chest, sometimes one on the back."""
    image = _base(color)
    ink = tuple(float(v) for v in second)
    text = str(rng.integers(1, 99)) if rng.random() < 0.5 else "".join(rng.choice(list("AEHKMNRSTX"), 3))
    scale = float(rng.uniform(0.35, 0.7))
    (w, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_DUPLEX, scale, 1)
    for u in (SIZE // 2, 0) if rng.random() < 0.4 else (SIZE // 2,):
        patch = np.zeros((SIZE, SIZE), np.uint8)
        if rng.random() < 0.75:
            cv2.putText(patch, text, (SIZE // 2 - w // 2, 36), cv2.FONT_HERSHEY_DUPLEX, scale, 255, 2)
        else:
            cv2.circle(patch, (SIZE // 2, 30), int(rng.integers(3, 9)), 255, -1)
        patch[60:] = 0  # limbs reuse the texture; keep the mark near its top
        image[np.roll(patch, u - SIZE // 2, 1) > 0] = ink
    return image


def _print(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    image = _base(color)
    third = rng.random(3)
    for _ in range(int(rng.integers(6, 22))):
        center = (int(rng.integers(SIZE)), int(rng.integers(SIZE)))
        ink = second if rng.random() < 0.6 else third
        cv2.circle(image, center, int(rng.integers(2, 10)), tuple(float(v) for v in ink), -1)
    return image


def _skin(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    red = noise(rng, (SIZE, SIZE), (4,), (0.05,), periodic=True)[..., None] * np.array([0.3, 1.0, 1.0], np.float32)
    return _base(color) * (1.0 + red)


def _strands(rng: np.random.Generator, color: np.ndarray, second: np.ndarray) -> np.ndarray:
    columns = rng.random((1, SIZE), np.float32) * 0.5 + 0.75
    return _base(color) * columns[..., None]


def _disc(image: np.ndarray, u: float, v: float, width: float, height: float, ink: np.ndarray) -> None:
    """Fill an ellipse at 128ths of the texture from its middle column and top row, in place."""
    k = SIZE / 128.0
    center, axes = (round(SIZE / 2 + u * k), round(v * k)), (max(1, round(width * k)), max(1, round(height * k)))
    cv2.ellipse(image, center, axes, 0, 0, 360, (float(ink[0]), float(ink[1]), float(ink[2])), -1)


def _face(rng: np.random.Generator, color: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Eyes, brows and mouth."""
    return _features(_skin(rng, color, hair), color, hair)


def _bearded(rng: np.random.Generator, color: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """A face with a beard."""
    image = _skin(rng, color, hair)
    _disc(image, 0, 102, 19, 20, color * 0.5 + hair * 0.4)
    _disc(image, 0, 88, 9, 4, color)
    return _features(image, color, hair)


def _features(image: np.ndarray, color: np.ndarray, hair: np.ndarray) -> np.ndarray:
    for sign in (-1, 1):
        _disc(image, 8 * sign, 60, 6, 4, color * 0.72)
        _disc(image, 8 * sign, 60, 3.6, 1.9, np.array([0.93, 0.92, 0.90]))
        _disc(image, 8 * sign, 60, 1.5, 1.5, np.array([0.12, 0.09, 0.08]))
        _disc(image, 8 * sign, 52, 5, 1.2, hair * 0.6)
    _disc(image, 0, 94, 5.5, 2, np.clip(color * np.array([0.95, 0.62, 0.60]), 0, 1))
    return image


PATTERNS: dict[str, Painter] = {
    "plain": _plain,
    "stripes": _stripes,
    "hoops": _hoops,
    "check": _check,
    "blotches": _blotches,
    "panels": _panels,
    "side_stripe": _side_stripe,
    "logo": _logo,
    "print": _print,
    "skin": _skin,
    "strands": _strands,
    "face": _face,
    "bearded": _bearded,
}
"""Patterns of an outfit, by name."""


def paint(rng: np.random.Generator, outfit: Outfit) -> np.ndarray:
    """Return an outfit's textures, ``(len(MATERIALS), SIZE, SIZE, 3)`` float32 about [0, 1], with painted folds."""
    textures = np.empty((len(MATERIALS), SIZE, SIZE, 3), np.float32)
    folds = 1.0 + noise(rng, (SIZE, SIZE), (8, 24), (0.12, 0.07), periodic=True)[..., None]
    worn = {"lower": not outfit.one_piece, "shoe": outfit.shoes, "sole": outfit.shoes, "sock": outfit.sock > 0}
    worn["accent"] = outfit.gloves or outfit.hat != "none"
    for i, pattern in enumerate(outfit.patterns):
        if not worn.get(MATERIALS[i], True):
            textures[i] = 0.0
            continue
        color = outfit.colors[i].astype(np.float32)
        if pattern == "plain":
            textures[i] = folds * color
            continue
        # The second colour contrasts with the first, lighter or darker.
        step = rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.7) + rng.uniform(-0.2, 0.2, 3)
        second = outfit.colors[HAIR] if i == FACE else np.clip(color + step, 0.02, 0.98)
        textures[i] = PATTERNS[pattern](rng, color, second)
        if pattern not in ("skin", "face", "bearded"):
            textures[i] *= folds
    if outfit.hair != "none":
        hair = textures[HAIR]
        k = SIZE / 128.0
        around = np.abs(np.arange(SIZE) - SIZE / 2)
        textures[FACE, : round(22 * k)] = hair[: round(22 * k)]
        behind = around > 34 * k
        textures[FACE, : round(88 * k), behind] = hair[: round(88 * k), behind].transpose(1, 0, 2)
        temple = around > 27 * k
        textures[FACE, : round(50 * k), temple] = hair[: round(50 * k), temple].transpose(1, 0, 2)
    return textures
