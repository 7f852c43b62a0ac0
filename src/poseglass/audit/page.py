"""The audit as one HTML file that opens offline, with images of the worst, and as CSV."""

import base64
import csv
import html
import io
from itertools import zip_longest

import cv2
import numpy as np

from poseglass.audit.audit import Audit
from poseglass.audit.labels import KINDS, Finding, Labels
from poseglass.core.boxes import around, fit_aspect
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.view import View
from poseglass.drawing.pose import draw

TILE_PX = 280
"""Side of an image on the page."""

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:1240px;padding:0 1rem;color:#1b1f24;background:#fff}
h1{font-size:1.5rem} h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #d8dde3;padding-bottom:.3rem}
table{border-collapse:collapse} td,th{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #e6e9ed}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums} .notes li{margin:.2rem 0} a{color:#0b5cad}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:1.1rem}
figure{margin:0;border:1px solid #d8dde3;border-radius:6px;overflow:hidden;background:#f7f8fa}
figure img{width:100%;display:block} figcaption{padding:.5rem .7rem;font-size:.84rem;overflow-wrap:anywhere}
.sure{float:right;font-weight:600} .dim{color:#5c6670} .left{color:#c2570c} .right{color:#1668b8}
@media (prefers-color-scheme: dark){body{background:#14171a;color:#e4e7ea}
figure{background:#1d2125;border-color:#353b42}
td,th{border-color:#2b3137} h2{border-color:#353b42} a{color:#7db8f0} .dim{color:#9aa4ae} .left{color:#ff9d57}
.right{color:#6db3f2}}
"""


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
    """Spreadsheets run cells that begin with these as formulas; names of files come from anywhere."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def write_page(audit: Audit, *, worst: int = 120) -> str:
    """Return the audit as one HTML page.

    Args:
        audit: What was found.
        worst: Images at most; they are shared out among the kinds, the surest of each first.
    """
    chosen = _share_out(audit, worst)
    title = html.escape(f"Label audit: {audit.labels.name}")
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{audit.labels.num_people:,} people in {len(audit.labels.image_files):,} images. "
        "On the images <b class='left'>left limbs are orange</b>, <b class='right'>right ones blue</b> (the "
        "person's own sides); a ring marks the keypoints concerned. The number in a corner is the probability that "
        "something is wrong; 100 % is a broken rule.</p>",
        _table(audit),
    ]
    if audit.notes:
        parts.append("<ul class='notes'>" + "".join(f"<li>{html.escape(n)}</li>" for n in audit.notes) + "</ul>")
    if not audit.findings:
        parts.append("<p>Nothing was found.</p>")
    for kind, findings in chosen.items():
        total = sum(f.kind == kind for f in audit.findings)
        shown = f" <span class='dim'>({len(findings)} of {total} shown)</span>" if len(findings) < total else ""
        parts.append(f"<h2 id='{kind}'>{html.escape(KINDS[kind].capitalize())}{shown}</h2><div class='grid'>")
        parts += [_figure(audit.labels, f) for f in findings]
        parts.append("</div>")
    return "\n".join(parts) + "\n"


def _share_out(audit: Audit, worst: int) -> dict[str, list[Finding]]:
    by_kind = {kind: [f for f in audit.findings if f.kind == kind] for kind in KINDS}
    lists = [found for found in by_kind.values() if found]
    chosen = [f for row in zip_longest(*lists) for f in row if f is not None][:worst]
    return {kind: [f for f in chosen if f.kind == kind] for kind in KINDS if any(f.kind == kind for f in chosen)}


def _table(audit: Audit) -> str:
    rows = []
    for line in audit.summary():
        power = "" if line.power is None else f"{line.power:.0%}"
        words = html.escape(KINDS[line.kind])
        name = f"<a href='#{line.kind}'>{words}</a>" if line.count else words
        rows.append(
            f"<tr><td>{name}<td class='n'>{line.count:,}<td class='n'>{line.share:.1%} of {line.of}"
            f"<td class='n'>{power}"
        )
    head = "<tr><th>what<th class='n'>how many<th class='n'>share<th class='n'>of planted ones found"
    return f"<table>{head}{''.join(rows)}</table>" if rows else ""


def _figure(labels: Labels, finding: Finding) -> str:
    where = html.escape(finding.image) + (
        f", annotation {html.escape(str(finding.annotation))}" if finding.annotation is not None else ""
    )
    image_index = ""
    try:
        tile = image_of(labels, finding)
        if tile is not None:
            ok, data = cv2.imencode(".jpg", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
            if ok:
                code = base64.b64encode(data.tobytes()).decode()
                image_index = f"<img alt='{where}' loading='lazy' src='data:image/jpeg;base64,{code}'>"
    except (OSError, ValueError) as error:
        image_index = f"<p class='dim'>&nbsp;No image: {html.escape(str(error))}</p>"
    return (
        f"<figure>{image_index}<figcaption><span class='sure'>{finding.sure:.0%}</span><b>{where}</b><br>"
        f"{html.escape(finding.text)}</figcaption></figure>"
    )


def image_of(labels: Labels, finding: Finding) -> np.ndarray | None:
    """Return an image of what a finding is about: the person's crop, or the image, or two images side by side."""
    if finding.image_index is None or finding.kind == "image-missing":
        return None
    if finding.person is None:
        tiles = [_fitted(labels.image(i)) for i in (finding.image_index, finding.other) if i is not None]
        return tiles[0] if len(tiles) == 1 else np.concatenate(tiles, axis=1)
    group, row = finding.person
    people = labels.groups[group]
    image = labels.image(finding.image_index)
    height, width = image.shape[:2]
    # What was left out of the statistics is drawn too: a point at the origin is what the finding is about.
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
    # Rings are drawn here: draw() shows poses, and knows of no suspects.
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
    """The skeleton without sigmas: names, bones and sides are all that drawing needs."""
    return Skeleton(skeleton.name, skeleton.keypoints, skeleton.bones, (), skeleton.flip_pairs)


def _fitted(image: np.ndarray) -> np.ndarray:
    view = View.letterbox((image.shape[1], image.shape[0]), (TILE_PX, TILE_PX))
    return view.read(image, border_rgb=(90, 90, 90))
