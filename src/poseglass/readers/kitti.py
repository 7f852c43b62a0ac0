"""KITTI's object data: streets from a car, with boxes in space; and its format of results.

Geiger, Lenz, Urtasun, "Are we ready for Autonomous Driving? The KITTI Vision Benchmark Suite", CVPR 2012. The formats
are those of the development kit of the object benchmark. A folder has ``image_2``, ``label_2`` and ``calib``, with a
file for each picture: ``000123.png``, ``000123.txt``, ``000123.txt``.

A row of a label has 15 fields: the type; how much of the object is outside the picture (0 to 1); how much is hidden
(0 to 3, 3 being unknown); alpha; left, top, right and bottom of the box in the picture, pixels; height, width and
length, metres; x, y and z of the middle of its bottom in the frame of the rectified reference camera, metres; and the
yaw. A row of a result has a score as the 16th, and -1 for what it does not tell.

Here, as everywhere, boxes in space are in millimetres about their middle (``core.box_3d``). Metres and bottoms are left
behind when reading, and made again when writing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from poseglass.core.box_3d import check_projection, observe
from poseglass.core.files import write_bytes
from poseglass.core.instances import Instances
from poseglass.core.skeletons import BOXES
from poseglass.core.table import counted, listed, nearest
from poseglass.readers.labelled import LabelledImages

CLASSES = ("pedestrian", "car", "cyclist")
"""Classes that are evaluated, in CenterNet's order."""

TYPES = ("Pedestrian", "Car", "Cyclist")
"""What files call the classes."""

IGNORED_AS = {"Van": "Car", "Truck": "Car", "Person_sitting": "Pedestrian"}
"""Types that are like a class: where they are, that there is nothing of the class is not learnt (CenterNet)."""

LEFT_OUT = ("Tram", "Misc")
"""Types that are treated as if they were not labelled."""

DONT_CARE = "DontCare"
"""Regions in which objects are not labelled; they have no box in space."""

FIELDS = (
    "type", "truncated", "occluded", "alpha", "left", "top", "right", "bottom", "height", "width", "length", "x", "y",
    "z", "rotation_y", "score",
)  # fmt: skip
"""Fields of a row, in order; only results have the last."""

LEAST_SIDE_MM = 0.1
"""Smallest height, width and length that are written: a network may predict 0, which no row may have."""

MAX_FILE_BYTES = 4 * 1024**2
"""Largest label or calibration file that is read; KITTI's have a few thousand bytes."""


def kitti(
    folder: str | Path,
    *,
    split: str | Path | None = None,
    images: str | Path | None = None,
    camera: str = "P2",
    name: str | None = None,
) -> LabelledImages:
    """Read KITTI's object data.

    Vans and trucks are regions to ignore as cars, seated persons as pedestrians; trams and the rest are left out.
    ``DontCare`` regions are ignored for all classes: each is there once per class, as a crowd without a box in space. A
    van may be found as a car without being wrong, as in the benchmark; a truck has no box in space here, since the
    benchmark takes a detection of it for wrong.

    Args:
        folder: Has ``label_2``, ``calib`` and ``image_2``: "kitti/training".
        split: Text file with the names of the pictures to read, one on a line, such as 000123; None takes all labels.
        images: Folder of the pictures; None takes ``image_2`` in the folder.
        camera: Which calibration of the file is that of the pictures.
        name: Name of the dataset; None takes that of the split, or of the folder.

    Returns:
        Pictures with instances of ``CLASSES``, their ``box_3d`` and ``projection``, ``extra`` "truncation",
        "occlusion", "crowd" and "area"; the projection of every picture too. Boxes in the picture are as in the file,
        whose pixel centres are on integers.

    Raises:
        FileNotFoundError: A folder, a label, a calibration or a picture does not exist.
        ValueError: A file is invalid; the message names file, row and field.
    """
    folder = Path(folder)
    labels, calibrations = folder / "label_2", folder / "calib"
    pictures = folder / "image_2" if images is None else Path(images)
    for what, there in (("label_2", labels), ("calib", calibrations), ("image_2", pictures)):
        if not there.is_dir():
            raise FileNotFoundError(
                f"{folder}: there is no folder {there}. KITTI's training data have label_2, calib and image_2 in one "
                f"folder; give that one{' or set images' if what == 'image_2' else ''}."
            )
    names = _names(Path(split)) if split is not None else sorted(file.stem for file in labels.glob("*.txt"))
    if not names:
        raise FileNotFoundError(f"{labels} has no label such as 000000.txt.")
    files = {file.stem: file for file in sorted(pictures.iterdir()) if file.suffix.lower() in (".png", ".jpg", ".jpeg")}
    for what, there, kept in (
        ("label", labels, {file.stem for file in labels.glob("*.txt")}), ("picture", pictures, set(files))
    ):  # fmt: skip
        missing = [one for one in names if one not in kept]
        if missing:
            listed_by = f"{split} names" if split is not None else f"{labels} has labels of"
            advice = "" if what == "label" else " Set images to the folder with the pictures."
            if split is not None:
                advice = f" Correct the split, or give the folder that it is of.{advice}"
            raise FileNotFoundError(
                f"{listed_by} {counted(len(names), 'picture')}, of which {len(missing):,} have no {what} in {there}: "
                f"{listed(missing)}.{advice}"
            )
    types: Counter[str] = Counter()
    projections, parts = [], []
    for one in names:
        projection = read_calibration(calibrations / f"{one}.txt", camera=camera)
        rows = _rows(labels / f"{one}.txt", results=False)
        types.update(kind for kind, _ in rows)
        projections.append(projection)
        parts.append(_labels(rows, projection))
    notes = []
    ignored = {kind: types[kind] for kind in (*IGNORED_AS, DONT_CARE) if types[kind]}
    if ignored:
        words = ", ".join(f"{number:,} {kind}" for kind, number in ignored.items())
        notes.append(f"Regions to ignore, in which nothing of their classes is learnt: {words}.")
    left = {kind: types[kind] for kind in LEFT_OUT if types[kind]}
    if left:
        notes.append(f"Left out: {', '.join(f'{number:,} {kind}' for kind, number in left.items())}.")
    return LabelledImages(
        name or (Path(split).stem if split is not None else folder.name), BOXES, tuple(files[one] for one in names),
        tuple(parts), tuple(names), notes=tuple(notes), classes=CLASSES, projections=np.stack(projections),
    )  # fmt: skip


def read_calibration(path: str | Path, *, camera: str = "P2") -> np.ndarray:
    """Read the calibration of a camera: ``(3, 4)`` float64, camera frame in millimetres to pixels.

    Args:
        path: A file of KITTI, with a line ``P2:`` and twelve numbers; or a text file with nothing but twelve numbers,
            row by row. Points are in metres there.
        camera: The name before the colon; a file without names has one camera.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not such a file, lacks the camera, or the calibration is singular or of a camera that is not
            rectified.
    """
    path = Path(path)
    text = _text(path, "calibration")
    found = {
        key.strip(): numbers for key, colon, numbers in (line.partition(":") for line in text.splitlines()) if colon
    }
    if found and camera not in found:
        raise ValueError(f"{path} has no camera {camera}; it has {listed(list(found))}.{nearest(camera, found)}")
    words = (found[camera] if found else text).split()
    try:
        numbers = np.array([float(word) for word in words])
    except ValueError:
        raise ValueError(f"{path}: expected the numbers of {camera}, got {' '.join(words)[:60]!r}.") from None
    if len(numbers) != 12:
        raise ValueError(
            f"{path}: {camera} must have 12 numbers, 3 rows of 4, got {len(numbers)}. A calibration is a line such as "
            "'P2: 721.5 0 609.6 44.9 0 721.5 172.9 0.2 0 0 1 0.003'."
        )
    matrix = numbers.reshape(3, 4)
    matrix[:, 3] *= 1000
    return check_projection(matrix, f"{path}: {camera}")


def read_results(path: str | Path, projection: np.ndarray, *, classes: Sequence[str] = CLASSES) -> Instances:
    """Read the results for a picture, rows of 16 fields; types beside the classes are left out.

    Args:
        path: The file.
        projection: Calibration of the picture, ``(3, 4)``, camera frame in millimetres to pixels.
        classes: Names of the classes that labels count through, in any case.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A row is invalid; the message names file, row and field.
    """
    types = checked_names(classes)
    rows = [(kind, numbers) for kind, numbers in _rows(Path(path), results=True) if kind in types]
    values = np.array([numbers for _, numbers in rows]).reshape(-1, 15)
    count = len(rows)
    return Instances(
        BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), values[:, 3:7], values[:, 14],
        np.array([types.index(kind) for kind, _ in rows], np.int64), box_3d=_box_3d(values),
        projection=np.broadcast_to(projection, (count, 3, 4)),
    )  # fmt: skip


def write_results(path: str | Path, found: Instances, *, classes: Sequence[str] = CLASSES) -> None:
    """Write what was found in a picture as KITTI's results: 16 fields a row, the last of which is the score.

    So that every row can be read back, height, width and length are written as 0.0001 m at least, and a box in the
    picture whose edges would be written alike as one of 0.01 px.

    Args:
        path: The file, 000123.txt.
        found: Instances with ``box_3d`` and ``projection``; those without a box in space are left out.
        classes: Names of the classes that labels count through, in any case: car is written as Car.

    Raises:
        ValueError: Instances without boxes in space, or of a class beyond ``classes``; or a class that is none of
            KITTI's.
    """
    types = checked_names(classes)
    if len(found) and (found.box_3d is None or found.projection is None):
        raise ValueError(
            "KITTI's results are of boxes in space, but these instances have no box_3d and projection. Use weights "
            "that find boxes in 3D, and give the calibration of the picture."
        )
    lines = []
    for row, words in _fields(found, classes):
        lines.append(f"{types[int(found.label[row])]} -1 -1 {words} {float(found.box_score[row]):.6f}\n")
    write_bytes(path, "".join(lines).encode())


def write_labels(path: str | Path, truth: Instances, *, classes: Sequence[str] = CLASSES) -> None:
    """Write the labels of a picture as KITTI's: 15 fields a row.

    What is a crowd becomes a ``DontCare`` region, the only kind of row that needs no box in space. Nothing is written
    smaller than ``write_results`` does.

    Args:
        path: The file, 000123.txt.
        truth: Instances with ``box_3d`` and ``projection``, and ``extra`` "truncation", "occlusion" and "crowd", as
            ``kitti`` reads them.
        classes: As for ``write_results``.

    Raises:
        ValueError: Instances without one of these, or that have no box in space and are no crowd, or of a class
            beyond ``classes``; or a class that is none of KITTI's.
    """
    types = checked_names(classes)
    lacking = [name for name in ("truncation", "occlusion", "crowd") if name not in truth.extra]
    if len(truth) and (truth.box_3d is None or truth.projection is None or lacking):
        raise ValueError(
            "KITTI's labels are of boxes in space, with truncation and occlusion, but these instances have no "
            f"{', '.join(lacking) if lacking else 'box_3d and projection'}. Give instances as the reader returns them."
        )
    if len(truth):
        assert truth.box_3d is not None
        unknown = np.flatnonzero(~np.isfinite(truth.box_3d).all(1) & ~np.asarray(truth.extra["crowd"], bool))
        if len(unknown):
            raise ValueError(
                f"Instance {unknown[0]} has no box in space (NaN), which KITTI's labels need, as have {len(unknown)} "
                f"of {len(truth)}. Mark such as crowds to write regions to ignore, or leave them out."
            )
    regions: dict[str, None] = {}  # each once, though a region is read once per class
    lines = []
    for row in np.flatnonzero(truth.extra["crowd"]) if len(truth) else ():
        box = _box_words(truth.box_xyxy[row])
        regions[f"{DONT_CARE} -1 -1 -10 {box} -1 -1 -1 -1000 -1000 -1000 -10\n"] = None
    for row, words in _fields(truth, classes):
        if not truth.extra["crowd"][row]:
            hidden = f"{float(truth.extra['truncation'][row]):.2f} {int(truth.extra['occlusion'][row])}"
            lines.append(f"{types[int(truth.label[row])]} {hidden} {words}\n")
    write_bytes(path, "".join([*lines, *regions]).encode())


def write_calibration(path: str | Path, projection: np.ndarray, *, camera: str = "P2") -> None:
    """Write the calibration of a picture as KITTI's.

    Args:
        path: The file, 000123.txt.
        projection: ``(3, 4)``, camera frame in millimetres to pixels.
        camera: Before its colon.

    Raises:
        ValueError: No calibration, as ``check_projection`` says.
    """
    numbers = (check_projection(projection, f"{path}: projection") / [1.0, 1.0, 1.0, 1000.0]).ravel()
    write_bytes(path, f"{camera}: {' '.join(f'{v:.12e}' for v in numbers)}\n".encode())


def _fields(instances: Instances, classes: Sequence[str]) -> list[tuple[int, str]]:
    """Return alpha, box, size, place and yaw of each row that has a box in space, as words.

    Raises:
        ValueError: A label is none of the classes.
    """
    if not len(instances):
        return []
    assert instances.box_3d is not None
    assert instances.projection is not None
    if not 0 <= instances.label.min() <= instances.label.max() < len(classes):
        raise ValueError(
            f"Label {int(instances.label.max())} is none of the {len(classes)} classes {', '.join(classes)}."
        )
    out = []
    for row, alpha in enumerate(observe(instances.box_3d, instances.projection)[:, 7]):
        x, y, z, length, height, width, yaw = instances.box_3d[row].astype(float).tolist()
        if not np.isfinite([x, alpha]).all():
            continue
        height, width, length = (max(side, LEAST_SIDE_MM) for side in (height, width, length))
        numbers = [height / 1000, width / 1000, length / 1000, x / 1000, (y + height / 2) / 1000, z / 1000, yaw]
        words = [f"{alpha:.4f}", _box_words(instances.box_xyxy[row]), *(f"{v:.4f}" for v in numbers)]
        out.append((row, " ".join(words)))
    return out


def _box_words(box_xyxy: np.ndarray) -> str:
    """Return left, top, right and bottom of a box as words, the later ones larger if they round to the same."""
    left, top, right, bottom = (round(float(v), 2) for v in box_xyxy)
    right, bottom = (high + 0.01 * (high == low) for low, high in ((left, right), (top, bottom)))
    return " ".join(f"{v:.2f}" for v in (left, top, right, bottom))


def _labels(rows: list[tuple[str, list[float]]], projection: np.ndarray) -> Instances:
    """Return the labels of a picture; what is ignored is a crowd, for ``DontCare`` one of each class."""
    use = [
        (kind, numbers, label)
        for kind, numbers in rows if kind not in LEFT_OUT
        for label in (range(len(TYPES)) if kind == DONT_CARE else [TYPES.index(IGNORED_AS.get(kind, kind))])
    ]  # fmt: skip
    values = np.array([numbers for _, numbers, _ in use]).reshape(-1, 15)
    kinds = [kind for kind, _, _ in use]
    box = values[:, 3:7].astype(np.float32)
    solid = _box_3d(values)
    solid[[kind in (DONT_CARE, "Truck") for kind in kinds]] = np.nan
    count = len(use)
    return Instances(
        BOXES, np.zeros((count, 0, 2)), np.zeros((count, 0)), box, np.ones(count),
        np.array([label for _, _, label in use], np.int64), box_3d=solid,
        projection=np.broadcast_to(projection, (count, 3, 4)),
        extra={
            "area": np.prod(box[:, 2:] - box[:, :2], axis=1),
            "crowd": np.array([kind not in TYPES for kind in kinds], bool),
            "truncation": np.clip(values[:, 0], 0, 1).astype(np.float32),
            "occlusion": np.where(values[:, 1] < 0, 3, values[:, 1]).astype(np.int64),
        },
    )  # fmt: skip


def _box_3d(values: np.ndarray) -> np.ndarray:
    """Return boxes in space ``(N, 7)`` from the numbers of rows ``(N, 15)``."""
    height, width, length, x, y, z, yaw = values[:, 7:14].T
    return np.stack([x, y - height / 2, z, length, height, width, yaw / 1000], -1) * 1000


def _rows(path: Path, *, results: bool) -> list[tuple[str, list[float]]]:
    """Return type and 15 numbers of each row of a label, or of a result; a label's score is 1.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A row is invalid.
    """
    rows = []
    expected = 16 if results else 15
    known = (*TYPES, *IGNORED_AS, *LEFT_OUT, DONT_CARE)
    for number, line in enumerate(_text(path, "results" if results else "label").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"{path}: row {number}"
        if len(words) != expected:
            other = ""
            if len(words) == 31 - expected:
                other = (
                    " Results end in a score, which this row lacks: is it a label?" if results
                    else " The 16th is the score of a result: labels have none."
                )  # fmt: skip
            raise ValueError(
                f"{where} has {len(words)} fields; {'a result' if results else 'a label'} has {expected}.{other}"
            )
        if words[0] not in known:
            raise ValueError(
                f"{where}: type {words[0][:30]!r} is none of KITTI's: {', '.join(known)}.{nearest(words[0], known)}"
            )
        numbers = [_number(where, name, word) for name, word in zip(FIELDS[1:], words[1:], strict=False)]
        if not results:
            numbers.append(1.0)
        _check_row(where, words[0], numbers, results=results)
        rows.append((words[0], numbers))
    return rows


def _number(where: str, name: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(f"{where}: {name} must be a number, got {word[:30]!r}.") from None
    if not abs(value) < 1e9:
        raise ValueError(f"{where}: {name} must be a finite number, got {word[:30]!r}.")
    return value


def _check_row(where: str, kind: str, numbers: list[float], *, results: bool) -> None:
    """Raise unless the numbers of a row are possible.

    Raises:
        ValueError: They are not; the message names the field.
    """
    named = dict(zip(FIELDS[1:], numbers, strict=True))
    if named["right"] <= named["left"] or named["bottom"] <= named["top"]:
        raise ValueError(
            f"{where}: the box has left {named['left']:g}, top {named['top']:g}, right {named['right']:g} and bottom "
            f"{named['bottom']:g}; right must be larger than left, and bottom than top."
        )
    if kind == DONT_CARE:
        return
    for name in ("height", "width", "length"):
        if named[name] <= 0:
            raise ValueError(f"{where}: {name} must be metres above 0, got {named[name]:g}. Only DontCare has -1.")
    if abs(named["rotation_y"]) > np.pi + 0.01:
        raise ValueError(f"{where}: rotation_y must be radians from -pi to pi, got {named['rotation_y']:g}.")
    if not results and (named["occluded"] not in (-1, 0, 1, 2, 3) or named["truncated"] > 1):
        name = "truncated" if named["truncated"] > 1 else "occluded"
        wanted = "from 0 to 1" if name == "truncated" else "0, 1, 2 or 3"
        raise ValueError(f"{where}: {name} must be {wanted}, got {named[name]:g}.")


def _names(path: Path) -> list[str]:
    names = [line.strip() for line in _text(path, "split").splitlines() if line.strip()]
    if len(set(names)) != len(names):
        twice = [one for one, times in Counter(names).items() if times > 1]
        raise ValueError(f"{path} names pictures twice: {listed(twice)}.")
    return names


def _text(path: Path, what: str) -> str:
    """Return the text of a file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not text, or too large.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No such {what} file: {path}.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read.")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8, so it is no {what}.") from None


def checked_names(classes: Iterable[str]) -> tuple[str, ...]:
    """Return names of classes as KITTI writes them: "car" is "Car".

    Raises:
        ValueError: One is none of KITTI's.
    """
    kinds = {kind.lower(): kind for kind in (*TYPES, *IGNORED_AS, *LEFT_OUT)}
    found = []
    for name in classes:
        if name.lower() not in kinds:
            raise ValueError(
                f"{name!r} is none of KITTI's types: {', '.join(kinds.values())}.{nearest(name, list(kinds.values()))}"
            )
        found.append(kinds[name.lower()])
    return tuple(found)
