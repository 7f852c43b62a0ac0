import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.skeletons import LSP14
from poseglass.datasets import folder


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / ".thumbs").mkdir()
    for i, name in enumerate(("b.png", "a.JPG", "in/c.png", ".thumbs/x.png", ".hidden.png")):
        write_image(tmp_path / name, np.full((4 + i, 6, 3), i, np.uint8))
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def test_pictures_are_taken_in_order(pictures):
    data = folder(pictures, skeleton=LSP14)
    assert [p.name for p in data.paths] == ["a.JPG", "b.png"]
    assert [p.name for p in folder(pictures, recursive=True).paths] == ["a.JPG", "b.png", "c.png"]
    assert data.skeleton == LSP14
    assert len(data[1].instances) == 0
    assert data[1].size_wh == data.size_wh(1) == (6, 4)
    assert data.image(0, reduce=2).shape == (3, 3, 3)
    assert folder(pictures / "b.png").source(0) == str(pictures / "b.png")


def test_what_is_no_picture_is_named(pictures):
    (pictures / "d.png").write_text("text")
    data = folder(pictures)
    with pytest.raises(ValueError, match=r"d\.png is not a picture"):
        data[2]
    checked = folder(pictures, check=True)
    assert len(checked) == 2
    assert checked.notes == (f"Left out {pictures / 'd.png'}: not a picture.",)


def test_nothing_to_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such folder of pictures"):
        folder(tmp_path / "x")
    with pytest.raises(ValueError, match=r"No pictures in .* Pass recursive=True"):
        folder(tmp_path)
    (tmp_path / "d.png").write_text("text")
    with pytest.raises(ValueError, match=r"None of the 1 pictures in .* can be read\. Left out .*d\.png"):
        folder(tmp_path, check=True)
