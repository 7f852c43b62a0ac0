"""A folder of images with no labels."""

from pathlib import Path

from PIL import Image, UnidentifiedImageError

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
    """Take the images of a folder, sorted by name, with nobody labelled in them.

    Their content tells what is an image, not their names. What is not taken stands in the notes: images of formats that
    are not read, empty files, other files, folders inside, hidden files. A damaged image makes trouble only when it is
    read, and then by name; ``check=True`` excludes such files at once, with a note each.

    Args:
        path: Of the folder, or of one image.
        recursive: Also take the folders inside, in order of their paths.
        skeleton: What predictions for these images will have; there are no labels that could tell.
        check: Have every image verified first.
        name: Of the dataset; None takes the folder's.
        white: Of images of more than 8 bits the value that becomes 255; see ``LabelledImages``.

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
        deeper = "" if recursive else " To look into the folders inside, set recursive."
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
    try:
        with Image.open(path) as image:
            image.verify()
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:  # a damaged file may raise anything in Pillow's readers; the note names it
        return str(error) or type(error).__name__
    return None
