"""The image files of the labels: missing, unreadable, of another size, duplicated, or in two sets.

Images are compared by a difference hash: 16 x 16 signs of the horizontal and of the vertical change of brightness
(512 bits), taken from a small grey copy, so that scaling, mild compression and a change of brightness do not alter it.
"""

from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np

from poseglass.audit.labels import Finding, Labels
from poseglass.core.image import read_header

MAX_BITS = 40
"""Hashes of two copies of an image differ in fewer of their 512 bits; those of unrelated images in about 256."""


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """What was read of M images.

    Args:
        bits: ``(M, 64)`` uint8, 512 packed bits; zeros where there is no hash.
        grey: ``(M, 17, 17)`` uint8, the small copy.
        hashed: ``(M,)`` bool: readable, and not a uniform surface (whose hash would be noise).
    """

    bits: np.ndarray
    grey: np.ndarray
    hashed: np.ndarray


def check_images(labels: Labels) -> tuple[list[Finding], Looks]:
    """Read every image once, reduced: report missing, unreadable and differently sized ones, and hash the others."""
    m = len(labels.image_files)
    looks = Looks(np.zeros((m, 64), np.uint8), np.zeros((m, 17, 17), np.uint8), np.zeros(m, bool))
    found: list[Finding] = []
    for i, image_index in enumerate(labels.image_files):
        try:
            image, size_wh, rotated = _read_small(labels, i)
        except FileNotFoundError:
            where = f" (looked for {image_index.path})" if image_index.path is not None else ""
            text = f"There is no such image{where}. Pass --images with the folder of the images."
            found.append(Finding("image-missing", "error", 1.0, text, image_index.name, image_index=i))
            continue
        except (ValueError, OSError) as error:
            found.append(Finding("image-unreadable", "error", 1.0, str(error), image_index.name, image_index=i))
            continue
        declared = image_index.size_wh
        if declared is not None and size_wh is not None and declared != size_wh:
            text = f"The labels say {declared[0]} x {declared[1]} pixels, the file has {size_wh[0]} x {size_wh[1]}."
            if declared == size_wh[::-1]:
                text += " Width and height are exchanged" + (
                    ": the file is rotated by its EXIF tag, and the labels seem to be of the image before rotation."
                    if rotated else ", or the file was rotated."
                )  # fmt: skip
            ratio = size_wh[0] / declared[0]
            found.append(Finding("image-size", "error", 1.0, text, image_index.name, value=ratio, image_index=i))
        looks.grey[i], looks.bits[i], looks.hashed[i] = _hash(image)
    if m > 20 and sum(f.kind == "image-missing" for f in found) == m:
        folder = labels.image_files[0].path.parent if labels.image_files[0].path is not None else "unknown"
        text = f"None of the {m:,} images exists (looked in {folder}). Pass --images with the folder of the images."
        found = [Finding("image-missing", "error", 1.0, text, labels.image_files[0].name, count=m, image_index=0)]
    return found, looks


def find_duplicates(labels: Labels, looks: Looks) -> list[Finding]:
    """Return images that have two names."""
    found: list[Finding] = []
    for a, b, bits in _pairs(looks, looks):
        first, second = labels.image_files[a].name, labels.image_files[b].name
        if a >= b or first == second:
            continue
        text = f"The same image as {first} ({bits} of 512 bits of their hashes differ). Keep one, with all its people."
        found.append(_alike("duplicate-image", text, second, bits, b, a))
    return found


def find_leaks(labels: Labels, looks: Looks, other: Labels, other_looks: Looks) -> list[Finding]:
    """Return images of ``labels`` that are also in ``other``."""
    found: list[Finding] = []
    seen: set[int] = set()
    for a, b, bits in _pairs(looks, other_looks):
        if a not in seen:
            seen.add(a)
            text = (
                f"Also in {other.name}, as {other.image_files[b].name} ({bits} of 512 bits of the hashes differ): "
                "training images must not be in the evaluation set."
            )
            found.append(_alike("leakage", text, labels.image_files[a].name, bits, a, None))
    return found


def _alike(kind: str, text: str, image: str, bits: int, image_index: int, other: int | None) -> Finding:
    sure = 1.0 - 0.1 * bits / MAX_BITS
    return Finding(kind, "warning", sure, text, image, value=float(bits), image_index=image_index, other=other)


def _read_small(labels: Labels, index: int) -> tuple[np.ndarray, tuple[int, int] | None, bool]:
    """Decode at about 64 px: the image, the file's true size upright, and whether an EXIF tag rotates it."""
    path = labels.image_files[index].path
    if path is None:
        image = labels.image(index)
        return image, (image.shape[1], image.shape[0]), False
    if not path.is_file():
        raise FileNotFoundError(path)
    header = read_header(path)
    reduce = next((r for r in (8, 4, 2) if min(header.size_wh) >= 48 * r), 1)
    return labels.image(index, reduce=reduce), header.size_wh, header.orientation >= 5


def _hash(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (17, 17), interpolation=cv2.INTER_AREA)
    values = grey.astype(np.int16)
    signs = np.concatenate([(np.diff(values, axis=1)[:16] > 0).ravel(), (np.diff(values, axis=0)[:, :16] > 0).ravel()])
    plain = float(values.std()) < 4.0
    return grey, np.packbits(signs), not plain


def _pairs(first: Looks, second: Looks) -> list[tuple[int, int, int]]:
    """Return pairs of similar images, with the number of differing bits, without comparing all pairs.

    Of 64 bytes of two hashes that differ in 40 bits at least 24 are equal, so candidates are those that share several
    bytes at fixed positions: every run of two bytes is a bucket.
    """
    names = np.ascontiguousarray(first.bits).view(np.uint16), np.ascontiguousarray(second.bits).view(np.uint16)
    votes: dict[tuple[int, int], int] = defaultdict(int)
    rows_a, rows_b = np.flatnonzero(first.hashed), np.flatnonzero(second.hashed)
    for band in range(32):
        buckets: dict[int, list[int]] = defaultdict(list)
        for j, key in zip(rows_b.tolist(), names[1][rows_b, band].tolist(), strict=True):
            buckets[key].append(j)
        for i, key in zip(rows_a.tolist(), names[0][rows_a, band].tolist(), strict=True):
            members = buckets.get(key, ())
            if len(members) <= 200:  # a bucket of hundreds is a common pattern (a sky), not a copy
                for j in members:
                    if first is not second or i < j:
                        votes[i, j] += 1
    pairs = []
    for i, j in sorted(key for key, count in votes.items() if count >= 4):
        bits = int(np.bitwise_count(first.bits[i] ^ second.bits[j]).sum())
        if bits <= MAX_BITS:
            a, b = first.grey[i].astype(np.float64), second.grey[j].astype(np.float64)
            # The hash ignores the strength of a change; the grey copies must be similar as well.
            if np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97:
                pairs.append((i, j, bits))
    return pairs
