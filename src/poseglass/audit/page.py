"""The audit as one HTML file that opens offline, with images of the worst findings, and as CSV."""

import base64
import csv
import io
from itertools import zip_longest

import cv2
import numpy as np

from poseglass.audit.audit import Audit, KindSummary
from poseglass.audit.labels import KINDS, Finding, Labels
from poseglass.core.boxes import around, fit_aspect
from poseglass.core.instances import Instances
from poseglass.core.page import render_page
from poseglass.core.skeleton import Skeleton
from poseglass.core.view import View
from poseglass.drawing.pose import draw

TILE_PX = 280
"""Side of an image on the page."""


def write_csv(audit: Audit) -> str:
    """Return all findings as CSV with a header line."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["kind", "severity", "sure", "image", "annotation", "keypoints", "value", "count", "text"])
    for f in audit.findings:
        value = "" if f.value is None else f"{f.value:.4g}"
        row = [f.kind, f.severity, f"{f.sure:.3f}", f.image, "" if f.annotation is None else f.annotation]
        table.writerow([_plain(cell) for cell in [*row, " ".join(f.keypoints), value, f.count, f.text]])
    return out.getvalue()


def _plain(cell: object) -> object:
    """Escape cells that spreadsheets run as formulas, by their first character; file names can be anything."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def write_page(audit: Audit, *, worst: int = 120) -> str:
    """Return the audit as one HTML page.

    Args:
        audit: What was found.
        worst: Maximum number of images; they are divided among the kinds, the most certain of each first.
    """
    chosen = _share_out(audit, worst)
    kinds = []
    for kind, findings in chosen.items():
        total = sum(f.kind == kind for f in audit.findings)
        shown = f"({len(findings)} of {total} shown)" if len(findings) < total else ""
        figures = [_figure(audit.labels, f) for f in findings]
        kinds.append({"kind": kind, "words": KINDS[kind].capitalize(), "shown": shown, "figures": figures})
    values = {
        "title": f"Label audit: {audit.labels.name}",
        "scope": f"{audit.labels.num_people:,} people in {len(audit.labels.image_files):,} images.",
        "lines": [_line(line) for line in audit.summary()],
        "notes": audit.notes,
        "nothing": not audit.findings,
        "kinds": kinds,
    }
    return render_page("audit.html", values)


def _share_out(audit: Audit, worst: int) -> dict[str, list[Finding]]:
    by_kind = {kind: [f for f in audit.findings if f.kind == kind] for kind in KINDS}
    lists = [found for found in by_kind.values() if found]
    chosen = [f for row in zip_longest(*lists) for f in row if f is not None][:worst]
    return {kind: [f for f in chosen if f.kind == kind] for kind in KINDS if any(f.kind == kind for f in chosen)}


def _line(line: KindSummary) -> dict[str, object]:
    return {
        "kind": line.kind,
        "words": KINDS[line.kind],
        "found": bool(line.count),
        "count": f"{line.count:,}",
        "share": f"{line.share:.1%} of {line.of}",
        "power": "" if line.power is None else f"{line.power:.0%}",
    }


def _figure(labels: Labels, finding: Finding) -> dict[str, str]:
    where = finding.image + (f", annotation {finding.annotation}" if finding.annotation is not None else "")
    source = error = ""
    try:
        tile = image_of(labels, finding)
        if tile is not None:
            ok, data = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
            if ok:
                source = f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
    except (OSError, ValueError) as problem:
        error = str(problem)
    return {"source": source, "error": error, "where": where, "sure": f"{finding.sure:.0%}", "text": finding.text}


def image_of(labels: Labels, finding: Finding) -> np.ndarray | None:
    """Return an image of a finding: the person's crop, or the image, or two images side by side."""
    if finding.image_index is None or finding.kind == "image-missing":
        return None
    if finding.person is None:
        tiles = [_fitted(labels.image(i)) for i in (finding.image_index, finding.other) if i is not None]
        return tiles[0] if len(tiles) == 1 else np.concatenate(tiles, axis=1)
    group, row = finding.person
    people = labels.groups[group]
    image = labels.image(finding.image_index)
    height, width = image.shape[:2]
    # Points excluded from the statistics are drawn too: a point at the origin is what its finding is about.
    points = np.where((people.raw[row, :, 2] > 0)[:, None], people.raw[row, :, :2], people.xy[row])
    extent = around(np.concatenate([points, people.box_xyxy[row].reshape(2, 2)])[None])[0]
    limit = np.array([-width, -height, 2 * width, 2 * height], np.float64)
    if not np.isfinite(extent).all():
        extent = np.array([-0.5, -0.5, width - 0.5, height - 0.5])
    extent = np.clip(extent, limit[[0, 1, 0, 1]], limit[[2, 3, 2, 3]])
    if min(extent[2:] - extent[:2]) < 4:
        extent = extent + np.array([-2, -2, 2, 2])
    view = View.of_region(fit_aspect(extent, 1.0, padding=1.15), (TILE_PX, TILE_PX))
    to_tile, tile = view.to_view, view.read(image, border_rgb=(90, 90, 90))
    skeleton = people.skeleton
    # Rings are drawn here: draw() shows poses, and knows no suspects.
    person = Instances.from_keypoints(_unlisted(skeleton), to_tile(points)[None].astype(np.float32))
    tile = draw(tile, person, min_score=0.0, thickness=0.6)
    for name in finding.keypoints:
        x, y = to_tile(points)[skeleton.index(name)]
        if np.isfinite([x, y]).all() and abs(x) < 4 * TILE_PX and abs(y) < 4 * TILE_PX:
            center = (round(float(x)), round(float(y)))
            cv2.circle(tile, center, 11, (0, 0, 0), 4, cv2.LINE_AA)
            cv2.circle(tile, center, 11, (255, 60, 180), 2, cv2.LINE_AA)
    return tile


def _unlisted(skeleton: Skeleton) -> Skeleton:
    """Return the skeleton without sigmas: drawing only needs names, bones and sides."""
    return Skeleton(skeleton.name, skeleton.keypoints, skeleton.bones, (), skeleton.flip_pairs)


def _fitted(image: np.ndarray) -> np.ndarray:
    view = View.letterbox((image.shape[1], image.shape[0]), (TILE_PX, TILE_PX))
    return view.read(image, border_rgb=(90, 90, 90))
