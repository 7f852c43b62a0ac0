import cv2
import numpy as np
import pytest
from PIL import Image

from poseglass.core.image import write_image
from poseglass.core.skeletons import LSP14
from poseglass.readers import folder


@pytest.fixture
def images(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / ".thumbs").mkdir()
    for i, name in enumerate(("b.png", "a.JPG", "in/c.png", ".thumbs/x.png", ".hidden.png")):
        write_image(tmp_path / name, np.full((4 + i, 6, 3), i, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_images_are_taken_in_order(images):
    data = folder(images, skeleton=LSP14)
    assert [p.name for p in data.paths] == ["a.JPG", "b.png"]
    assert [p.name for p in folder(images, recursive=True).paths] == ["a.JPG", "b.png", "c.png"]
    assert data.skeleton == LSP14
    assert len(data[1].instances) == 0
    assert data[1].size_wh == data.size_wh(1) == (6, 4)
    assert data.image(0, reduce=2).shape == (3, 3, 3)
    assert folder(images / "b.png").source(0) == str(images / "b.png")


def test_what_is_no_image_is_named(images):
    (images / "d.png").write_text("text")
    (images / "e.png").write_bytes((images / "b.png").read_bytes()[:45])
    (images / "f").write_bytes((images / "b.png").read_bytes())
    data = folder(images)
    assert [p.name for p in data.paths] == ["a.JPG", "b.png", "e.png", "f"]
    notes = " ".join(data.notes)
    assert "d.png is not an image, though named like one: it is text." in notes
    assert "1 file is not an image: notes.txt." in notes
    assert "1 subfolder was not searched: in." in notes
    assert "2 hidden files and folders were skipped: .hidden.png, .thumbs." in notes
    with pytest.raises(ValueError, match=r"e\.png is a damaged or truncated image"):
        data[2]
    checked = folder(images, check=True)
    assert len(checked) == 3
    assert checked.notes[-1].startswith(f"Excluded {images / 'e.png'}: it is a damaged or truncated image (")


def test_what_can_be_read_is_not_excluded(tmp_path):
    """Pillow does not know RGB in floating point; images are read by more than Pillow."""
    cv2.imwrite(str(tmp_path / "f.tiff"), np.full((8, 8, 3), 0.5, np.float32))
    checked = folder(tmp_path, check=True)
    assert [path.name for path in checked.paths] == ["f.tiff"]
    assert checked.notes == ()


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such folder of images"):
        folder(tmp_path / "x")
    with pytest.raises(ValueError, match=r"No images that can be read in .* set recursive"):
        folder(tmp_path)
    (tmp_path / "d.png").write_text("text")
    with pytest.raises(ValueError, match=r"No images that can be read in .*d\.png is not an image"):
        folder(tmp_path)
    (tmp_path / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"None of the 1 images in .* can be read\. Excluded .*d\.png"):
        folder(tmp_path, check=True)


def test_white_of_deep_images_can_be_set(tmp_path):
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(tmp_path / "a.png")
    assert folder(tmp_path).image(0).max() == 255
    assert folder(tmp_path, white=65535).image(0).max() == 16
    with pytest.raises(ValueError, match="white level must be a number above 0"):
        folder(tmp_path, white=-1)
