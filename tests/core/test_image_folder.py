"""A folder as people have it: its content decides, and whatever is not taken is named."""

import os
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.file_kinds import file_kind
from poseglass.core.image import decode_image, write_image
from poseglass.core.image_folder import list_folder

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)


@pytest.fixture
def mess(tmp_path: Path) -> Path:
    image = np.full((8, 8, 3), 90, np.uint8)
    for name in ("a.jpg", "upper.png", "z.png"):
        write_image(tmp_path / name, image)
    jpeg = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "upper.png").rename(tmp_path / "UPPER.PNG")
    for name in ("b.jfif", "no_suffix", "truly_a_jpeg.png"):
        (tmp_path / name).write_bytes(jpeg)
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "c.heic").write_bytes(HEIC)
    (tmp_path / "c2.jpg").write_bytes(HEIC)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100))
    (tmp_path / ".DS_Store").write_bytes(bytes(10))
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "deep.jpg").write_bytes(jpeg)
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("text")
    return tmp_path


def test_images_are_identified_by_their_content(mess: Path) -> None:
    listing = list_folder(mess)
    expected = ["UPPER.PNG", "a.jpg", "b.jfif", "cut.jpg", "link.jpg", "no_suffix", "truly_a_jpeg.png", "z.png"]
    assert [p.name for p in listing.images] == expected
    deep = list_folder(mess, recursive=True)
    assert [str(p.relative_to(mess)) for p in deep.images] == sorted([*expected, "inside/deep.jpg"])
    assert deep.folders == ()


def test_everything_else_is_named(mess: Path) -> None:
    notes = list_folder(mess).notes()
    text = "\n".join(notes)
    for words in (
        "2 files are each a HEIC image: c.heic, c2.jpg. Convert",
        "empty.jpg is an empty file. Fetch or export it again.",
        "broken.jpg is a link to ",
        "text.jpg is not an image, though named like one: it is text.",
        "2 files are not images: Thumbs.db, notes.txt.",
        "1 subfolder was not searched: inside. Name them to search them.",
        "1 hidden file or folder was skipped: .DS_Store.",
    ):
        assert words in text
    assert len(notes) == 7
    for i in range(9):
        (mess / f"{i}.heic").write_bytes(HEIC)
    assert "11 files are each a HEIC image: 0.heic, 1.heic, 2.heic, 3.heic and 7 more." in "\n".join(
        list_folder(mess).notes()
    )


def test_a_folder_of_images_has_no_notes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert list_folder(tmp_path).notes() == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens everything")
def test_an_unreadable_file_is_reported(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    (tmp_path / "a.png").chmod(0)
    assert "a.png is unreadable (Permission denied)" in list_folder(tmp_path).notes()[0]


@pytest.mark.parametrize(
    ("head", "name", "remedy"),
    [
        (HEIC, "a HEIC image", "Convert it to JPEG"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif" + bytes(90), "an AVIF image", "Convert it to JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(90), "an AVIF image", "Convert it to JPEG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "a camera raw file", "Develop it"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(90), "a camera raw file", "Develop it"),
        (b"FUJIFILMCCD-RAW 0201", "a camera raw file", "Develop it"),
        (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "a video", "ffmpeg"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "a video", "ffmpeg"),
        (b"RIFF\0\0\0\0AVI LIST", "a video", "ffmpeg"),
        (b"\x1aE\xdf\xa3\x01\0", "a video", "ffmpeg"),
        (b"%PDF-1.7\n", "a PDF document", "pdftoppm"),
        (b"8BPS\0\1", "a Photoshop image", "Convert it"),
        (b"<?xml version='1.0'?>\n<svg width='3'>", "an SVG drawing", "Convert it"),
        (b"\xff\x0a\xfa", "a JPEG XL image", "Convert it"),
        (bytes(128) + b"DICM" + bytes(90), "a DICOM image", "Convert it"),
        (b"", "an empty file", "Fetch"),
        (b"a,b\n1,2\n", "text", ""),
        (bytes(range(1, 200)) * 2, "of an unknown kind", ""),
    ],
)
def test_kinds_are_named_with_a_remedy(head: bytes, name: str, remedy: str) -> None:
    kind = file_kind(head)
    assert kind.name == name
    assert kind.remedy.startswith(remedy) or remedy in kind.remedy
    with pytest.raises(ValueError, match=f"photo.jpg is not an image that can be read .* it is {name}"):
        decode_image(head, "photo.jpg")
