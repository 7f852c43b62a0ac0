"""Rendered pages of handwritten Japanese, with a box and a class for each character.

Columns run from right to left, characters touch and vary in size, and a few classes make up most of the text, as in the
books of Kaggle's Kuzushiji recognition. Paper may be ruled, stained, and show the writing of its other side. The hands
are fonts, which do not come with poseglass: in Debian, ``fonts-kouzan-mouhitsu`` has truly cursive forms of all 6,355
kanji of JIS X 0208, and ``fonts-aoyagi-soseki``, ``fonts-klee`` and ``fonts-kiloji`` are other hands.

A page depends only on ``(seed, index)``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import ImageFont

from poseglass.core.affine import Affine
from poseglass.core.fonts import code_points, find_font
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import ANY_CHARACTER, BOXES
from poseglass.core.table import listed

HANDS = ("kouzan-mouhitsu.ttf", "kouzan-mouhitsu-gyosho.ttf", "KouzanBrushFontSousyo.ttf", "aoyagi-soseki.ttf")
"""Files of the fonts that pages are written with by default: square, semi-cursive and cursive script, and one more."""

PACKAGES = "fonts-kouzan-mouhitsu, fonts-aoyagi-soseki, fonts-klee, fonts-kiloji"

GLYPH_PX = 64
"""Size at which characters are drawn before they are placed."""

TAIL, HEAD = 1.2, 8.0
"""Of the Zipf-Mandelbrot law of the classes' frequencies, ``(rank + HEAD) ** -TAIL``."""

_MOST_PER_PAGE = 1200


def kana() -> tuple[str, ...]:
    """Return hiragana, katakana and marks that common fonts have, the most frequent first."""
    hiragana = [chr(code) for code in range(0x3041, 0x3094)]
    katakana = [chr(code) for code in range(0x30A1, 0x30F7)]
    mixed = np.random.default_rng(1).permutation  # neighbours in the tables are not equally frequent
    return (
        *(hiragana[i] for i in mixed(len(hiragana))),
        *(katakana[i] for i in mixed(len(katakana))),
        *"ーゝゞヽヾ々〆〇、。・「」『』〃◇…☆★",
    )


@lru_cache(maxsize=1)
def kanji() -> tuple[str, ...]:
    """Return the 6,355 kanji of JIS X 0208 in a fixed random order."""
    found = []
    for row in range(16, 85):
        for column in range(1, 95):
            try:
                found.append(bytes([0xA0 + row, 0xA0 + column]).decode("euc_jp"))
            except UnicodeDecodeError:  # a place without a character
                continue
    return tuple(found[i] for i in np.random.default_rng(0).permutation(len(found)))


def frequencies(classes: int) -> np.ndarray:
    """Return how frequent each class is, ``(classes,)``, the most frequent first; the sum is 1."""
    weights = (np.arange(1, classes + 1) + HEAD) ** -TAIL
    return weights / weights.sum()


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A character on a page.

    Args:
        label: Its class.
        font: Number of its font.
        to_page: Pixels of the drawn character to pixels of the page.
        ink: How dark it is, 0 to 1.
    """

    label: int
    font: int
    to_page: Affine
    ink: float


@dataclass(frozen=True, eq=False)
class Pages:
    """Rendered pages, a ``Dataset``. Create it with ``pages``, for defaults and checks.

    Args:
        count: Number of pages.
        seed: Pages of another seed have nothing in common with these.
        image_wh: Width and height of the pages, pixels.
        fonts: Files of the fonts.
        characters: One for each class, the most frequent first.
        size_px: Smallest and largest size of characters, pixels; each page has its own.
        worn: Whether paper is stained and ruled, and shows its other side.
        one_class: Whether all characters are of one class.
    """

    count: int
    seed: int
    image_wh: tuple[int, int]
    fonts: tuple[Path, ...]
    characters: tuple[str, ...]
    size_px: tuple[float, float]
    worn: bool
    one_class: bool = False
    _recent: dict[int, list[Written]] = field(default_factory=dict, init=False, repr=False)

    @property
    def skeleton(self) -> Skeleton:
        """A skeleton without keypoints."""
        return BOXES

    @property
    def classes(self) -> tuple[str, ...]:
        """Code points of the characters, ``"U+306F"``, as in the competition; or "character" alone."""
        if self.one_class:
            return (ANY_CHARACTER,)
        return tuple(f"U+{ord(character):04X}" for character in self.characters)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> PoseSample:
        """Render a page.

        Raises:
            IndexError: No such page.
        """
        index = self._checked(index)
        return PoseSample(self.image(index), self.instances(index), Affine.identity(), self.source(index))

    def source(self, index: int) -> str:
        """Return a name that tells how to render the page again."""
        return f"pages-{self.seed}-{self._checked(index)}"

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of a page, pixels: the same for all."""
        self._checked(index)
        return self.image_wh

    def boxes_complete(self, index: int) -> bool:
        """Return True: every character has a box."""
        self._checked(index)
        return True

    def instances(self, index: int) -> Instances:
        """Return the labels of a page: the boxes of the characters' ink."""
        writing = self._writing(self._checked(index))
        boxes = [_box(self._glyph(one), one.to_page) for one in writing]
        box = np.array(boxes, np.float32).reshape(-1, 4)
        limit = np.array([*self.image_wh, *self.image_wh], np.float32) - 0.5
        box = np.clip(box, -0.5, limit)
        count = len(writing)
        return Instances(
            BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), box, np.ones(count),
            np.array([0 if self.one_class else one.label for one in writing], np.int64),
            extra={"area": np.prod(box[:, 2:] - box[:, :2], axis=1), "crowd": np.zeros(count, bool)},
        )  # fmt: skip

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Render the image ``(H, W, 3)`` uint8 RGB, always at full size.

        Raises:
            IndexError: No such page.
            ValueError: ``reduce`` is not 1, 2, 4 or 8.
        """
        if reduce not in (1, 2, 4, 8):
            raise ValueError(f"reduce must be 1, 2, 4 or 8, got {reduce}.")
        index = self._checked(index)
        rng = np.random.default_rng((self.seed, index, 1))
        image = _paper(rng, self.image_wh, worn=self.worn)
        ink_rgb = np.array([rng.uniform(15, 55)] * 3) + np.array([rng.uniform(0, 25), rng.uniform(0, 10), 0.0])
        if self.worn and rng.random() < 0.5:
            behind = self._ink(self._layout(np.random.default_rng((self.seed, index, 2))))[:, ::-1]
            behind = cv2.GaussianBlur(behind, (0, 0), rng.uniform(0.8, 2.0)) * np.float32(rng.uniform(0.05, 0.25))
            image += (ink_rgb - image) * behind[..., None]
        alpha = self._ink(self._writing(index))[..., None]
        image += (ink_rgb - image) * alpha
        image += rng.normal(0, rng.uniform(1, 5), (*image.shape[:2], 1))
        return np.clip(image, 0, 255).astype(np.uint8)

    def _writing(self, index: int) -> list[Written]:
        if index not in self._recent:
            found = self._layout(np.random.default_rng((self.seed, index, 0)))
            self._recent.clear()
            self._recent[index] = found
        return self._recent[index]

    def _layout(self, rng: np.random.Generator) -> list[Written]:
        """Write columns from right to left until the page is full."""
        width, height = self.image_wh
        size = float(np.exp(rng.uniform(*np.log(self.size_px))))
        font = int(rng.integers(len(self.fonts)))
        pitch = size * rng.uniform(1.15, 1.8)
        skew = np.deg2rad(rng.uniform(-3, 3))
        margin_x, margin_y = rng.uniform(0.02, 0.08, 2) * self.image_wh
        middle = np.array(self.image_wh) / 2
        tight = rng.uniform(0.62, 0.95)  # below about 0.8, characters touch
        weights = frequencies(len(self.characters))
        found: list[Written] = []
        x = width - margin_x - size / 2
        while x > margin_x + size / 2 and len(found) < _MOST_PER_PAGE:
            y = margin_y + size / 2 + (rng.uniform(0, 0.3) * height if rng.random() < 0.2 else 0.0)
            end = height - margin_y - size / 2 - (rng.uniform(0, 0.5) * height if rng.random() < 0.2 else 0.0)
            ink, drift = rng.uniform(0.75, 1.0), 0.0
            while y < end and len(found) < _MOST_PER_PAGE:
                label = int(rng.choice(len(weights), p=weights))
                scale = size / GLYPH_PX * float(np.exp(rng.normal(0, 0.13)))
                stretch = float(np.exp(rng.normal(0, 0.1)))
                turn = skew + np.deg2rad(rng.normal(0, 2.5))
                drift = 0.8 * drift + rng.normal(0, 0.03) * size
                at = np.array([x + drift, y]) - middle
                cos, sin = np.cos(skew), np.sin(skew)
                place = np.array([cos * at[0] - sin * at[1], sin * at[0] + cos * at[1]]) + middle
                linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * scale
                linear[:, 1] *= stretch
                shift = place - linear @ np.full(2, GLYPH_PX - 0.5)  # the middle of the drawn character
                to_page = Affine(np.concatenate([linear, shift[:, None]], axis=1))
                found.append(Written(label, font, to_page, ink))
                y += size * tight * stretch * rng.uniform(0.9, 1.15)
                ink = 1.0 if ink < 0.55 else ink - rng.uniform(0, 0.04)  # the brush is dipped again
            x -= pitch
        return [one for one in found if self._shown(one)]

    def _shown(self, one: Written) -> bool:
        """Return whether most of a character is on the page."""
        box = _box(self._glyph(one), one.to_page)
        limit = np.array([*self.image_wh, *self.image_wh]) - 0.5
        clipped = np.clip(box, -0.5, limit)
        sides, whole = clipped[2:] - clipped[:2], box[2:] - box[:2]
        return bool(sides.min() > 1 and sides.prod() > 0.7 * whole.prod())

    def _glyph(self, one: Written) -> "_Glyph":
        glyph = _glyph(str(self.fonts[one.font]), self.characters[one.label])
        if glyph is None:
            raise ValueError(f"{self.fonts[one.font]} draws nothing for {self.characters[one.label]!r}.")
        return glyph

    def _ink(self, writing: list[Written]) -> np.ndarray:
        """Return how much ink there is at each pixel, ``(H, W)`` float32, 0 to 1."""
        width, height = self.image_wh
        ink = np.zeros((height, width), np.float32)
        for one in writing:
            glyph = self._glyph(one)
            box = _box(glyph, one.to_page)
            x0, y0 = (max(int(np.floor(v)) - 1, 0) for v in box[:2])
            x1, y1 = (min(int(np.ceil(v)) + 2, side) for v, side in zip(box[2:], self.image_wh, strict=True))
            if x0 >= x1 or y0 >= y1:
                continue
            to_part = one.to_page.then(Affine(np.array([[1.0, 0.0, -x0], [0.0, 1.0, -y0]])))
            mask = glyph.mask
            if one.to_page.scale < 0.7:  # or thin strokes would break
                mask = cv2.GaussianBlur(mask, (0, 0), 0.45 / one.to_page.scale)
            drawn = cv2.warpAffine(mask, to_part.matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
            part = ink[y0:y1, x0:x1]
            np.maximum(part, drawn.astype(np.float32) * np.float32(one.ink / 255), out=part)
        return ink

    def _checked(self, index: int) -> int:
        if not -self.count <= index < self.count:
            raise IndexError(f"Pages has {self.count} pages, 0 to {self.count - 1}; got index {index}.")
        return int(index) % self.count

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_recent": {}}


def pages(
    count: int = 1000,
    *,
    seed: int = 0,
    size_wh: tuple[int, int] = (512, 512),
    fonts: Sequence[str] | None = None,
    num_kana: int = 189,
    num_kanji: int = 200,
    characters: str | None = None,
    size_px: tuple[float, float] = (20.0, 40.0),
    worn: bool = True,
    one_class: bool = False,
) -> Pages:
    """Create rendered pages of handwritten Japanese.

    Args:
        count: Number of pages.
        seed: 0 or more.
        size_wh: Width and height of the pages, pixels, 64 to 4096.
        fonts: Fonts, as files or as names of files that are looked for among the installed fonts; None takes ``HANDS``.
        num_kana: Number of kana and marks among the classes, up to 189: hiragana, the most frequent, then the others.
        num_kanji: Number of kanji, up to 6,355, which are rarer than kana.
        characters: Any other characters instead, the most frequent first.
        size_px: Smallest and largest size of characters, pixels.
        worn: Whether paper is stained and ruled, and shows its other side.
        one_class: Give all characters one class, to train a network that only finds them.

    Raises:
        FileNotFoundError: A font is not installed; the message names the packages.
        ValueError: A number is out of range, or a font lacks characters.
    """
    if count < 1 or seed < 0:
        raise ValueError(f"pages needs count of 1 or more and seed of 0 or more, got {count} and {seed}.")
    if len(size_wh) != 2 or not all(64 <= int(v) <= 4096 for v in size_wh):
        raise ValueError(f"size_wh must be (width, height) with 64 to 4096 pixels each, got {size_wh}.")
    if not 6 <= size_px[0] <= size_px[1] <= min(size_wh) / 2:
        raise ValueError(
            f"size_px must go from at least 6 up to half of the shorter side, {min(size_wh) / 2:g} px, got {size_px}."
        )
    most = len(kana()), len(kanji())
    if not 0 <= num_kana <= most[0] or not 0 <= num_kanji <= most[1] or num_kana + num_kanji < 1:
        raise ValueError(
            f"pages takes up to {most[0]} kana and {most[1]:,} kanji, at least one of them, got {num_kana} and "
            f"{num_kanji}."
        )
    chosen = kana()[:num_kana] + kanji()[:num_kanji] if characters is None else tuple(characters)
    if len(set(chosen)) != len(chosen) or not chosen:
        raise ValueError(f"characters must be different ones, at least one, got {characters!r:.60}.")
    files = tuple(_font(name) for name in (HANDS if fonts is None else fonts))
    if not files:
        raise ValueError("fonts must name at least one font, or be left out.")
    for file in files:
        lacks = [c for c in chosen if ord(c) not in code_points(file) or _glyph(str(file), c) is None]
        if lacks:
            raise ValueError(
                f"{file} lacks {len(lacks):,} of {len(chosen):,} characters: {listed(lacks)}. Use another font, or "
                "fewer characters."
            )
    return Pages(
        int(count), int(seed), (int(size_wh[0]), int(size_wh[1])), files, chosen,
        (float(size_px[0]), float(size_px[1])), bool(worn), bool(one_class),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Glyph:
    """A drawn character: its mask ``(2 * GLYPH_PX, 2 * GLYPH_PX)`` uint8, and the hull of its ink ``(N, 2)``."""

    mask: np.ndarray
    hull: np.ndarray


@lru_cache(maxsize=32768)  # 16 KB each
def _glyph(font: str, character: str) -> _Glyph | None:
    """Draw a character; None if the font draws nothing for it."""
    side = 2 * GLYPH_PX  # brush strokes may reach beyond the character's square
    drawn, offset = _opened(font).getmask2(character, mode="L", anchor="mm")
    mask = np.zeros((side, side), np.uint8)
    ink = np.array(drawn, dtype=np.uint8).reshape(drawn.size[::-1])
    left, top = GLYPH_PX + offset[0], GLYPH_PX + offset[1]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + ink.shape[1], side), min(top + ink.shape[0], side)
    if x1 > x0 and y1 > y0:
        mask[y0:y1, x0:x1] = ink[y0 - top : y1 - top, x0 - left : x1 - left]
    rows, columns = np.nonzero(mask > 64)
    if not len(rows):
        return None
    corners = np.stack([columns, rows], -1)
    edges = np.concatenate([corners + np.array(step) for step in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5))])
    return _Glyph(mask, cv2.convexHull(edges.astype(np.float32))[:, 0].astype(np.float64))


@lru_cache(maxsize=16)
def _opened(font: str) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font, GLYPH_PX)


def _font(name: str | Path) -> Path:
    """Return the file of a font.

    Raises:
        FileNotFoundError: It is neither a file nor installed.
    """
    found = find_font(name)
    if found is not None:
        return found
    raise FileNotFoundError(
        f"The font {name} is not installed. In Debian and Ubuntu, such fonts are in the packages {PACKAGES}; or give "
        "the files of other fonts with Japanese characters as fonts."
    )


def _box(glyph: _Glyph, to_page: Affine) -> np.ndarray:
    """Return the box of a character's ink on the page, ``(4,)`` x0 y0 x1 y1."""
    points = to_page(glyph.hull)
    return np.concatenate([points.min(0), points.max(0)])


def _paper(rng: np.random.Generator, size_wh: tuple[int, int], *, worn: bool) -> np.ndarray:
    """Return blank paper ``(H, W, 3)`` float32."""
    width, height = size_wh
    color = np.array([rng.uniform(185, 250), 0.0, 0.0])
    color[1] = color[0] - rng.uniform(2, 22)
    color[2] = color[1] - rng.uniform(5, 45)
    image = np.empty((height, width, 3), np.float32)
    image[:] = color
    for grid, strength in ((6, 9.0), (40, 4.0)):
        noise = rng.normal(0, strength, (grid, grid)).astype(np.float32)
        image += cv2.resize(noise, size_wh, interpolation=cv2.INTER_CUBIC)[..., None]
    if not worn:
        return image
    if rng.random() < 0.35:  # rules between the columns
        shade = np.float32(rng.uniform(20, 70))
        lean = rng.uniform(-0.03, 0.03)
        for x in np.arange(rng.uniform(0, 40), width, rng.uniform(25, 70)):
            ends = (round(x - lean * height / 2), 0), (round(x + lean * height / 2), height - 1)
            lines = np.zeros((height, width), np.uint8)
            cv2.line(lines, *ends, 255, 1, cv2.LINE_AA)
            image -= lines[..., None].astype(np.float32) / 255 * shade
    for _ in range(int(rng.poisson(1.5))):  # stains
        stain = np.zeros((height, width), np.float32)
        at = (int(rng.integers(width)), int(rng.integers(height)))
        axes = tuple(int(v) for v in rng.uniform(0.03, 0.25, 2) * min(size_wh))
        cv2.ellipse(stain, at, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        stain = cv2.GaussianBlur(stain, (0, 0), rng.uniform(0.02, 0.06) * min(size_wh))
        image -= stain[..., None] * np.array([1.0, 1.2, 1.6], np.float32) * np.float32(rng.uniform(8, 50))
    for _ in range(int(rng.poisson(1.0))):  # holes of worms
        at = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(image, at, int(rng.integers(1, 5)), tuple(float(v) for v in color * rng.uniform(0.3, 1.05)), -1)
    return image
