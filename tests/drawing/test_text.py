import numpy as np
import pytest

from poseglass.drawing.text import fit_text, printable, put_text, text_size


def test_other_scripts_give_other_images():
    blank = np.zeros((40, 200, 3), np.uint8)
    images = [put_text(blank, text, (4, 4), size_px=20) for text in ("aaaa", "жжжж", "ωωωω", "éééé")]
    for i, a in enumerate(images):
        assert a.any()
        assert all(not np.array_equal(a, b) for b in images[:i])
    assert not blank.any()


def test_surrogates_and_newlines_do_not_break_it():
    image = put_text(np.zeros((30, 100, 3), np.uint8), "a\udcff\nb", (2, 2))
    assert image.any()
    assert "\n" not in printable("a\nb")


def test_text_outside_the_image_is_not_drawn():
    blank = np.zeros((30, 100, 3), np.uint8)
    for xy in ((500, 5), (5, 500), (-500, 5), (5, -500)):
        assert not put_text(blank, "word", xy).any()
    assert put_text(blank, "a long word", (-20, -4)).any()


def test_fit_text_keeps_both_ends_and_fits():
    text = "a_folder_of_many_letters/" * 20 + "im00021.jpg"
    for width in (60, 120, 300):
        short = fit_text(text, 12, width)
        assert text_size(short, 12)[0] <= width
        assert short.startswith("a")
        assert short.endswith("g")
    assert fit_text("short", 12, 300) == "short"


def test_put_text_wants_rgb():
    with pytest.raises(ValueError, match=r"image must be \(H, W, 3\) uint8 RGB"):
        put_text(np.zeros((4, 4)), "x", (0, 0))  # type: ignore[arg-type]
