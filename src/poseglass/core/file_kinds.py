"""Identify files by their first bytes: supported images, unsupported images, and files that are not images."""

from dataclasses import dataclass

HEAD_BYTES = 512
"""Number of bytes that are enough to identify a file."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file.

    Args:
        name: Name with its article: "a HEIC image", "a PDF document".
        group: "image" for supported images; "convert" for files with images that are not supported; "other".
        remedy: What to do with a file of the group "convert".
    """

    name: str
    group: str
    remedy: str = ""


_TO_JPEG = "Convert it to JPEG or PNG first, e.g. magick FILE FILE.png (ImageMagick)."
_DEVELOP = "Develop it to TIFF or JPEG first, with the camera's program, darktable or RawTherapee."
_FRAMES = "Extract its frames as images first, e.g. ffmpeg -i FILE frames/%06d.png."
_PAGES = "Extract its pages as images first, e.g. pdftoppm -png FILE page."


def _image(name: str) -> FileKind:
    return FileKind(name, "image")


def _unread(name: str) -> FileKind:
    return FileKind(name, "convert", _TO_JPEG)


_RAW = FileKind("a camera raw file", "convert", _DEVELOP)
_VIDEO = FileKind("a video", "convert", _FRAMES)
_SOUND = FileKind("a sound file", "other")
_ARCHIVE = FileKind("an archive", "other")
EMPTY = FileKind("an empty file", "convert", "Fetch or export it again.")
TEXT = FileKind("text", "other")
UNKNOWN = FileKind("of an unknown kind", "other")

_STARTS: tuple[tuple[bytes, FileKind], ...] = (
    (b"\xff\xd8\xff", _image("a JPEG image")),
    (b"\x89PNG\r\n\x1a\n", _image("a PNG image")),
    (b"GIF87a", _image("a GIF image")),
    (b"GIF89a", _image("a GIF image")),
    (b"II*\0\x10\0\0\0CR", _RAW),
    (b"II*\0", _image("a TIFF image")),
    (b"MM\0*", _image("a TIFF image")),
    (b"II+\0", _image("a TIFF image")),
    (b"MM\0+", _image("a TIFF image")),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),
    (b"FOVb", _RAW),
    (b"\0MRM", _RAW),
    (b"8BPS", _unread("a Photoshop image")),
    (b"\xff\x0a", _unread("a JPEG XL image")),
    (b"\0\0\0\x0cJXL ", _unread("a JPEG XL image")),
    (b"\0\0\0\x0cjP  ", _unread("a JPEG 2000 image")),
    (b"\xff\x4f\xff\x51", _unread("a JPEG 2000 image")),
    (b"v/1\x01", _unread("an OpenEXR image")),
    (b"#?RADIANCE", _unread("a Radiance HDR image")),
    (b"#?RGBE", _unread("a Radiance HDR image")),
    (b"SIMPLE  =", _unread("a FITS image")),
    (b"gimp xcf", _unread("a GIMP image")),
    (b"\0\0\x01\0", _unread("an icon")),
    (b"qoif", _unread("a QOI image")),
    (b"DDS ", _unread("a DDS image")),
    (b"%PDF", FileKind("a PDF document", "convert", _PAGES)),
    (b"%!PS", FileKind("a PostScript file", "convert", _TO_JPEG)),
    (b"\x1aE\xdf\xa3", _VIDEO),
    (b"\0\0\x01\xba", _VIDEO),
    (b"\0\0\x01\xb3", _VIDEO),
    (b"FLV\x01", _VIDEO),
    (b"OggS", _VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", _VIDEO),
    (b"ID3", _SOUND),
    (b"fLaC", _SOUND),
    (b"PK\x03\x04", _ARCHIVE),
    (b"\x1f\x8b", _ARCHIVE),
    (b"7z\xbc\xaf\x27\x1c", _ARCHIVE),
    (b"Rar!", _ARCHIVE),
    (b"BZh", _ARCHIVE),
    (b"\xfd7zXZ\0", _ARCHIVE),
    (b"\xd0\xcf\x11\xe0", FileKind("a Windows database or document", "other")),
    (b"\x89HDF", FileKind("an HDF5 file", "other")),
    (b"\x93NUMPY", FileKind("a NumPy array", "other")),
    (b"MATLAB 5.0", FileKind("a MATLAB file", "other")),
)

_BRANDS: tuple[tuple[tuple[bytes, ...], FileKind], ...] = (
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _unread("a HEIC image")),
    ((b"avif", b"avis"), _unread("an AVIF image")),
    ((b"crx ",), _RAW),
    ((b"M4A ", b"M4B "), _SOUND),
)
"""Kinds by the first brand of a file in the ISO base media format. All other brands are videos."""


def file_kind(head: bytes) -> FileKind:
    """Identify a file by its first ``HEAD_BYTES`` bytes; its name is ignored.

    Example:
        >>> file_kind(b"GIF89a").name, file_kind(b"name,x,y").name, file_kind(b"").name
        ('a GIF image', 'text', 'an empty file')
    """
    if not head:
        return EMPTY
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[4:8] == b"ftyp":
        brands = [head[8:12], *(head[i : i + 4] for i in range(16, min(len(head), int.from_bytes(head[:4], "big")), 4))]
        # "mif1" only says that the file holds images; another brand tells their format
        for brand in brands[:1] if brands[0] != b"mif1" else [*(b for b in brands if b != b"mif1"), b"mif1"]:
            for names, kind in _BRANDS:
                if brand in names:
                    return kind
        return _VIDEO
    if head.startswith(b"RIFF"):
        form = {b"WEBP": _image("a WebP image"), b"AVI ": _VIDEO, b"WAVE": _SOUND}
        return form.get(head[8:12], UNKNOWN)
    if head.startswith(b"BM") and len(head) >= 18 and head[14:18] in _BMP_HEADERS:
        return _image("a BMP image")
    if len(head) > 2 and head[:1] == b"P" and head[1:2] in b"123456fF" and head[2:3].isspace():
        return _image("a PPM or PGM image")
    if head[128:132] == b"DICM":
        return _unread("a DICOM image")
    if len(head) > 377 and head[0] == head[188] == head[376] == 0x47:
        return _VIDEO
    if _is_text(head):
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:300].lower()
        if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
            return _unread("an SVG drawing")
        return TEXT
    return UNKNOWN


_BMP_HEADERS = tuple(size.to_bytes(4, "little") for size in (12, 16, 40, 52, 56, 64, 108, 124))


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if b"\0" in head:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and len(head) >= HEAD_BYTES - 3  # a character cut off at the end
    return True
