"""Heatmaps as images: all of them over the crop, or one tile per joint."""

from collections.abc import Sequence

import cv2
import numpy as np

from poseglass.core.sample import check_image
from poseglass.core.skeleton import Skeleton
from poseglass.drawing.palette import OUTLINE_RGB, joint_colors
from poseglass.drawing.pose import resized
from poseglass.drawing.text import fit_text, text_size, write_text


def overlay_heatmaps(image: np.ndarray, heatmaps: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Return the crop, darkened, with every map over it in its joint's colour.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, the network's input.
        heatmaps: ``(K, h, w)``, 1 where the joint certainly is; values are clipped to [0, 1].
        skeleton: Its K keypoints give the colours (``joint_colors``).

    Raises:
        ValueError: The image is not uint8 RGB, or the maps are not ``(K, h, w)`` and finite.
    """
    check_image(image)
    maps = _checked(heatmaps, skeleton)
    height, width = image.shape[:2]
    base = 0.6 * _grey(image)
    light = np.zeros_like(base)
    strongest = np.zeros((height, width, 1), np.float32)
    for one, rgb in zip(maps, joint_colors(skeleton), strict=True):
        value = np.clip(cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)[..., None]
        # Every pixel takes the colour of the strongest map there: sums of many colours turn white.
        light = np.where(value > strongest, value * rgb, light)
        strongest = np.maximum(strongest, value)
    return np.clip(base * (1 - strongest) + light + 0.5, 0, 255).astype(np.uint8)


def heatmap_grid(
    image: np.ndarray,
    heatmaps: np.ndarray,
    skeleton: Skeleton,
    *,
    scores: np.ndarray | None = None,
    columns: int | None = None,
    tile_px: int = 160,
) -> np.ndarray:
    """Return a tile per joint: its map over the crop, its name, its score, a cross at the peak.

    Args:
        image: ``(H, W, 3)`` uint8 RGB, the network's input.
        heatmaps: ``(K, h, w)``; values are clipped to [0, 1], the peak value is written unclipped.
        skeleton: Names the K maps.
        scores: ``(K,)``, written beside the names; None takes the heights of the peaks.
        columns: Tiles in a row; None chooses about as many as rows.
        tile_px: Longest side of a tile, pixels.

    Raises:
        ValueError: The image is not uint8 RGB, the maps are not ``(K, h, w)`` and finite, or a number is below 1.
    """
    check_image(image)
    maps = _checked(heatmaps, skeleton)
    tile, _ = resized(image, tile_px)
    base = 0.6 * _grey(tile)
    height, width = tile.shape[:2]
    tiles, captions = [], []
    written = maps.max((-1, -2)) if scores is None else scores
    for name, one, score in zip(skeleton.keypoints, maps, written, strict=True):
        value = np.clip(cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR), 0, 1)
        value = np.sqrt(value)  # so that weak peaks show too
        heat = cv2.applyColorMap(np.round(value * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        alpha = value[..., None]
        tile = np.clip(base * (1 - alpha) + heat * alpha + 0.5, 0, 255).astype(np.uint8)
        row, column = np.unravel_index(int(one.argmax()), one.shape)
        center = np.array([(column + 0.5) * width / one.shape[1] - 0.5, (row + 0.5) * height / one.shape[0] - 0.5])
        _cross(tile, center, max(3, tile_px // 16))
        tiles.append(tile)
        captions.append((name, f"{float(score):.2f}"))
    return tiled(tiles, captions, columns=columns or max(1, round(len(tiles) ** 0.5)), tile_wh=(width, height))


def tiled(
    tiles: Sequence[np.ndarray],
    captions: Sequence[tuple[str, str]],
    *,
    columns: int,
    tile_wh: tuple[int, int],
    gap_px: int = 6,
    ground: tuple[int, int, int] = (30, 32, 38),
) -> np.ndarray:
    """Return images in a grid with a line of text under each.

    Args:
        tiles: ``(h, w, 3)`` uint8 RGB, none larger than ``tile_wh``; smaller ones are centred.
        captions: For each tile the text on the left, shortened if it is too long, and the text on the right.
        columns: Tiles in a row.
        tile_wh: Space for each image, pixels.
        gap_px: Gap between tiles, pixels.
        ground: Colour behind the tiles.

    Raises:
        ValueError: No tiles, or less than one column.
    """
    if not tiles:
        raise ValueError("A grid needs at least one tile, got none.")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    size_px = int(np.clip(tile_wh[0] // 16, 9, 22))
    line = text_size("A", size_px)[1] + 4
    step_x, step_y = tile_wh[0] + gap_px, tile_wh[1] + line + gap_px
    out = np.full((rows * step_y + gap_px, columns * step_x + gap_px, 3), ground, np.uint8)
    for i, (tile, (left, right)) in enumerate(zip(tiles, captions, strict=True)):
        x, y = gap_px + (i % columns) * step_x, gap_px + (i // columns) * step_y
        dx, dy = (tile_wh[0] - tile.shape[1]) // 2, (tile_wh[1] - tile.shape[0]) // 2
        out[y + dy : y + dy + tile.shape[0], x + dx : x + dx + tile.shape[1]] = tile
        room = text_size(right, size_px)[0] if right else 0
        under = y + tile_wh[1] + 2
        label = fit_text(left, size_px, tile_wh[0] - room - size_px // 2)
        write_text(out, label, (x + 1, under), size_px=size_px, color=(235, 235, 235))
        if right:
            write_text(out, right, (x + tile_wh[0] - room - 1, under), size_px=size_px, color=(255, 196, 84))
    return out


def _checked(heatmaps: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    maps = np.asarray(heatmaps)
    if maps.ndim != 3 or len(maps) != len(skeleton) or 0 in maps.shape:
        raise ValueError(
            f"heatmaps must be (K, h, w) with K={len(skeleton)} of {skeleton.name!r}, got {maps.shape}. "
            "From a batch pass the maps of one image: stages[-1]['heatmap'][0].float().cpu().numpy()."
        )
    maps = maps.astype(np.float32)
    if not np.isfinite(maps).all():
        raise ValueError("heatmaps must be finite, got NaN or infinity; the network's weights or input are broken.")
    return maps


def _grey(image: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.repeat(grey[..., None], 3, axis=2)


def _cross(tile: np.ndarray, center_xy: np.ndarray, arm_px: int) -> None:
    x, y = (round(float(v)) for v in center_xy)
    inner = max(2, arm_px // 2)  # open in the middle: the peak itself stays visible
    for color, width in ((OUTLINE_RGB, 3), ((255, 255, 255), 1)):
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            cv2.line(tile, (x + dx * inner, y + dy * inner), (x + dx * arm_px, y + dy * arm_px), color, width)
