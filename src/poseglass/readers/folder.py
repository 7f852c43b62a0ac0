"""A folder of images without labels."""

from pathlib import Path

from poseglass.core.image import read_with_levels
from poseglass.core.image_folder import list_folder
from poseglass.core.instances import Instances
from poseglass.core.levels import check_white
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.readers.labelled import LabelledImages


def folder(
    path: str | Path,
    *,
    recursive: bool = False,
    skeleton: Skeleton = COCO17,
    check: bool = False,
    name: str | None = None,
    white: float | None = None,
) -> LabelledImages:
    """Read the images of a folder, sorted by name, without instances.

    Their content decides what is an image, not their names. The notes list what was skipped: unsupported image formats,
    empty files, other files, subfolders, hidden files. A damaged image raises an error that names it, but only when it
    is read; ``check=True`` excludes such files at once, with a note each.

    Args:
        path: Path of the folder, or of one image.
        recursive: Also read its subfolders, in order of their paths.
        skeleton: Skeleton of predictions for these images; there are no labels to take it from.
        check: Decode every image first, and exclude those that ``read_image`` does not read.
        name: Name of the dataset; None takes the folder's.
        white: For images of more than 8 bits, the value that becomes 255; see ``LabelledImages``.

    Raises:
        FileNotFoundError: No such folder.
        ValueError: No image in it, or a white that is not above 0.
    """
    if white is not None:
        check_white(white)
    root = Path(path)
    if not root.exists():
        raise FileNotFoundError(f"No such folder of images: {root}. Check the path; it is relative to {Path.cwd()}.")
    notes: list[str] = []
    if root.is_file():
        found = [root]
    else:
        listing = list_folder(root, recursive=recursive)
        found, notes = list(listing.images), listing.notes()
    if not found:
        deeper = "" if recursive else " To search its subfolders, set recursive."
        raise ValueError(f"No images that can be read in {root}. {' '.join(notes)}{deeper}")
    if check:
        readable = []
        for file in found:
            fault = _fault(file)
            if fault is None:
                readable.append(file)
            else:
                notes.append(f"Excluded {file}: {fault}.")
        if not readable:
            raise ValueError(f"None of the {len(found)} images in {root} can be read. {notes[-1]}")
        found = readable
    nobody = Instances.empty(skeleton)
    return LabelledImages(
        name=name or root.resolve().name,
        skeleton=skeleton,
        paths=tuple(found),
        labels=[nobody] * len(found),
        image_ids=tuple(range(1, len(found) + 1)),
        notes=tuple(notes),
        white=white,
    )


def _fault(path: Path) -> str | None:
    """Return why an image cannot be read, None if it can."""
    try:
        read_with_levels(path)
    except (ValueError, OSError) as error:
        text = str(error).rstrip(".")
        return f"it{text.removeprefix(str(path))}" if text.startswith(f"{path} ") else text
    return None
