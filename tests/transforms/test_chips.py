"""Acceptance of SNIPER's chips: what its paper promises, on random boxes, against brute force."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poseglass.transforms.chips import ARTICLE, ChipRule, ChipScale

WH = (320, 240)
RULE = ChipRule((ChipScale(2.0, 0, 40), ChipScale(1.0, 24, 90), ChipScale("whole", 70)), (128, 128), 16)


def random_boxes(rng: np.random.Generator, count: int, image_wh: tuple[int, int] = WH) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(4), np.log(200), (count, 1))) * np.exp(rng.normal(0, 0.4, (count, 2)))
    size = np.minimum(size, np.array(image_wh) - 1)
    low = rng.uniform(0, 1, (count, 2)) * (np.array(image_wh) - size) - 0.5
    return np.concatenate([low, low + size], axis=1)


@pytest.mark.parametrize("seed", range(40))
def test_every_valid_box_is_whole_in_a_chip_of_its_scale_and_no_chip_is_for_nothing(seed):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, int(rng.integers(0, 25)))
    chips = RULE.positive(boxes, WH, rng)
    for level, scale in enumerate(RULE.scales):
        of_scale = [chip for chip in chips if chip.level == level]
        edges = (boxes + 0.5) * RULE.factor(level, WH)
        fits = (np.floor(edges[:, :2]) + 128 >= edges[:, 2:]).all(1)  # a chip begins at a whole pixel
        valid = scale.holds(boxes) & fits
        shown = np.zeros(len(boxes), bool)
        for chip in of_scale:
            new = chip.covers(boxes) & valid & ~shown
            assert new.any(), "a chip that shows nothing new"
            shown |= new
        np.testing.assert_array_equal(shown, valid)
        if scale.scale == "whole":
            assert len(of_scale) == int(valid.any())


SIDES = st.floats(0.5, 900, allow_nan=False)
PLACES = st.floats(-100, 1000, allow_nan=False)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    boxes=st.lists(st.tuples(PLACES, PLACES, SIDES, SIDES), max_size=12),
    image_wh=st.tuples(st.integers(1, 900), st.integers(1, 900)),
    size_wh=st.tuples(st.integers(32, 300), st.integers(32, 300)),
    share=st.floats(0.05, 1.0),
    factor=st.floats(0.1, 4.0),
)
def test_any_boxes_in_any_image_are_shown_or_known_not_to_be(boxes, image_wh, size_wh, share, factor):
    rule = ChipRule((ChipScale(factor, 0, 120), ChipScale("whole", 60)), size_wh, max(round(share * min(size_wh)), 1))
    given = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes], np.float64).reshape(-1, 4)
    chips = rule.positive(given, image_wh)
    inside = np.clip(given, -0.5, np.array([*image_wh, *image_wh]) - 0.5)
    for level, scale in enumerate(rule.scales):
        valid, shown = scale.holds(inside), np.zeros(len(given), bool)
        for chip in chips:
            if chip.level == level:
                new = chip.covers(inside) & valid & ~shown
                assert new.any(), "a chip that shows nothing new"
                shown |= new
                assert min(chip.corner_px) >= 0
        side = (inside[:, 2:] - inside[:, :2]) * rule.factor(level, image_wh)
        too_long = (side > np.array(size_wh) - 1 - 1e-6).any(1)  # a chip begins at a whole pixel
        assert (shown | ~valid | too_long).all()
    nowhere = rule.in_no_range(given, image_wh) | rule.too_large(given, image_wh)
    whole = np.array([any(chip.covers(box[None])[0] for chip in chips) for box in inside], bool)
    assert (whole | nowhere).all()


def sets_of_candidates(boxes: np.ndarray, level: int) -> list[frozenset[int]]:
    """Return what each chip on the grid and on the edges shows, by the definition."""
    factor = RULE.factor(level, WH)
    places = []
    for full, side in zip(WH, RULE.size_wh, strict=True):
        last = max(int(np.ceil(full * factor)) - side, 0)
        places.append(sorted({*range(0, last + 1, RULE.stride), last}))
    edges = (boxes + 0.5) * factor
    shown = []
    for x in places[0]:
        for y in places[1]:
            inside = (edges[:, 0] >= x) & (edges[:, 1] >= y) & (edges[:, 2] <= x + 128) & (edges[:, 3] <= y + 128)
            shown.append(frozenset(np.flatnonzero(inside).tolist()))
    return shown


@pytest.mark.parametrize("seed", range(30))
def test_greedy_is_near_the_fewest_chips(seed):
    rng = np.random.default_rng(100 + seed)
    boxes = random_boxes(rng, 6)
    boxes = boxes[ARTICLE[0].holds(boxes)]
    for level, scale in enumerate(RULE.scales[:2]):
        options = list(set(sets_of_candidates(boxes, level)))
        on_grid = frozenset().union(*options)
        valid = on_grid & frozenset(np.flatnonzero(scale.holds(boxes)).tolist())
        chosen = sum(chip.level == level for chip in RULE.positive(boxes[sorted(valid)], WH, rng))
        options = [option & valid for option in options]
        fewest = next(
            count
            for count in range(len(valid) + 1)
            if any(frozenset().union(*some) == valid for some in combinations(options, count))
        )
        assert fewest <= chosen <= fewest * (np.log(max(len(valid), 1)) + 1)


def test_the_first_chip_shows_as_many_boxes_as_any_could():
    rng = np.random.default_rng(3)
    boxes = random_boxes(rng, 40)
    small = boxes[RULE.scales[0].holds(boxes) & ((boxes[:, 2:] - boxes[:, :2]) * 2 < 112).all(1)]
    first = next(chip for chip in RULE.positive(small, WH, rng) if chip.level == 0)
    assert first.covers(small).sum() == max(len(shown) for shown in sets_of_candidates(small, 0))


def test_a_box_in_two_ranges_is_shown_at_both_scales_and_one_in_none_nowhere():
    rule = ChipRule((ChipScale(2.0, 10, 40), ChipScale(1.0, 24, 60)), (128, 128), 16)
    at = {size: np.array([[50.0, 50.0, 50.0 + size, 50.0 + size]]) for size in (5, 15, 30, 50, 70)}
    found = {size: [chip.level for chip in rule.positive(box, WH)] for size, box in at.items()}
    assert found == {5: [], 15: [0], 30: [0, 1], 50: [1], 70: []}


def test_at_most_one_chip_for_each_scale_of_a_medium_object():
    """Of an image of 1333 x 800 pixels with one object, no more is processed than a chip for each scale."""
    rule = ChipRule()
    chips = rule.positive(np.array([[600.0, 300.0, 660.0, 400.0]]), (1333, 800))
    assert [chip.level for chip in chips] == [0, 1]
    assert sum(chip.size_wh[0] * chip.size_wh[1] for chip in chips) == 2 * 512 * 512


@pytest.mark.parametrize("seed", range(10))
def test_coordinates_come_home(seed):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, 10)
    for chip in RULE.positive(boxes, WH, rng):
        points = rng.uniform(0, 200, (20, 2))
        np.testing.assert_allclose(chip.view.home(chip.view.to_view(points)), points, atol=1e-9)
        left, top = chip.corner_px
        # pixel (x, y) of the resized image has its middle at (x + 0.5) / scale - 0.5
        np.testing.assert_allclose(
            chip.view.home(np.array([[0.0, 0.0]]))[0], (np.array([left, top]) + 0.5) / chip.scale - 0.5, atol=1e-9
        )
        assert chip.covers(boxes).tolist() == [
            bool((b[:2] >= chip.box_xyxy[:2] - 1e-6).all() and (b[2:] <= chip.box_xyxy[2:] + 1e-6).all()) for b in boxes
        ]


def test_pixels_of_a_chip_are_those_of_the_image():
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3)).astype(np.uint8)
    rule = ChipRule((ChipScale(1.0),), (128, 128), 16)
    chip = rule.positive(np.array([[200.0, 100.0, 240.0, 150.0]]), WH)[0]
    x, y = chip.corner_px
    np.testing.assert_array_equal(chip.view.read(image), image[y : y + 128, x : x + 128])


def test_a_chip_that_is_larger_than_the_image_is_padded():
    rule = ChipRule((ChipScale(1.0),), (512, 512), 32)
    [chip] = rule.positive(np.array([[10.0, 10.0, 50.0, 60.0]]), (100, 80))
    assert chip.corner_px == (0, 0)
    pixels = chip.view.read(np.full((80, 100, 3), 200, np.uint8))
    assert (pixels[:80, :100] == 200).all()
    assert not pixels[80:].any()
    assert not pixels[:, 100:].any()


def test_boxes_that_no_chip_shows_are_known():
    rule = ChipRule((ChipScale(2.0, 0, 100),), (128, 128), 16)
    boxes = np.array([[0.0, 0.0, 20.0, 20.0], [0.0, 0.0, 90.0, 30.0], [0.0, 0.0, 200.0, 200.0]])
    assert rule.too_large(boxes, WH).tolist() == [False, True, False]  # the last one is not valid at all


def test_of_a_box_beyond_the_image_only_the_part_in_it_counts():
    boxes = np.array([[-40.0, 20.0, -10.0, 60.0], [330.0, 20.0, 360.0, 60.0], [310.0, 20.0, 410.0, 29.5]])
    assert RULE.scales[0].holds(np.array([[5.0, 5.0, 5.0, 90.0]])).tolist() == [False]
    assert RULE.in_no_range(boxes, WH).tolist() == [True, True, False]
    assert RULE.positive(boxes[:2], WH) == []
    assert RULE.negative(boxes[:2], [], WH, (1, 1, 1)) == []
    assert [chip.level for chip in RULE.positive(boxes, WH)] == [0]  # 9.5 px, not 31


def test_equally_good_chips_are_chosen_at_random_and_reproducibly():
    boxes = np.array([[100.0, 100.0, 110.0, 110.0]])
    corners = [RULE.positive(boxes, WH, np.random.default_rng(seed))[0].corner_px for seed in range(8)]
    again = [RULE.positive(boxes, WH, np.random.default_rng(seed))[0].corner_px for seed in range(8)]
    assert corners == again
    assert len(set(corners)) > 1


@pytest.mark.parametrize("seed", range(20))
def test_negative_chips_show_enough_proposals_that_no_positive_chip_shows(seed):
    rng = np.random.default_rng(seed)
    objects, proposals = random_boxes(rng, 4), random_boxes(rng, 120)
    positive = RULE.positive(objects, WH, rng)
    at_least = (5, 4, 3)
    for chip in RULE.negative(proposals, positive, WH, at_least, rng):
        left = RULE.scales[chip.level].holds(proposals) & chip.covers(proposals)
        for other in positive:
            if other.level == chip.level:
                left &= ~other.covers(proposals)
        assert left.sum() >= at_least[chip.level]


def test_no_negative_chips_where_too_few_proposals_are_left():
    rng = np.random.default_rng(0)
    crowd = np.tile([[40.0, 40.0, 60.0, 60.0]], (9, 1)) + rng.uniform(0, 3, (9, 4))
    assert RULE.negative(crowd, [], WH, (10, 10, 10)) == []
    assert [chip.level for chip in RULE.negative(crowd, [], WH, (9, 10, 10))] == [0]
    shown = RULE.positive(crowd, WH)
    assert RULE.negative(crowd, shown, WH, (1, 1, 1)) == []


@pytest.mark.parametrize(("image_wh", "overlap"), [((320, 240), 0), ((320, 240), 40), ((60, 500), 32), ((129, 128), 8)])
def test_tiles_show_every_pixel_and_overlap(image_wh, overlap):
    rule = ChipRule((ChipScale(1.0),), (128, 128), 16)
    seen = np.zeros(image_wh[::-1], int)
    tiles = rule.tiles(0, image_wh, overlap)
    for tile in tiles:
        x, y = tile.corner_px
        seen[y : y + 128, x : x + 128] += 1
        assert x + 128 <= max(image_wh[0], 128)
    assert (seen > 0).all()
    columns = sorted({tile.corner_px[0] for tile in tiles})
    assert all(b - a <= 128 - overlap for a, b in pairwise(columns))


@pytest.mark.parametrize(("make", "says"), [
    (lambda: ChipScale(0.0), "The scale of chips must be a factor above 0 and up to 16, or 'whole', got 0.0"),
    (lambda: ChipScale("half"), "or 'whole', got 'half'"),
    (lambda: ChipScale(1.0, 80, 40), "from 80 up to 40 px: no box can be in it"),
    (lambda: ChipScale(1.0, -1, 40), "no box can be in it"),
    (lambda: ChipRule(()), "Chips need 1 to 8 scales, got 0"),
    (lambda: ChipRule((ChipScale(1.0), ChipScale(1.0, 5))), "The scale 1.0 is given twice for chips"),
    (lambda: ChipRule(size_wh=(16, 64)), "sides of at least 32 px, got 16 x 64"),
    (lambda: ChipRule(stride=600), "The stride of chips must be 1 to 512, their shorter side, got 600"),
    (lambda: RULE.positive(np.array([[0, 0, np.nan, 4]]), WH), "Chips need finite boxes"),
    (lambda: RULE.positive(np.zeros((0, 4)), (0, 5)), "Chips need an image with area, got 0 x 5"),
    (lambda: RULE.negative(np.zeros((0, 4)), [], WH, (5, 5)), "at least 1 for each of 3 scales, got"),
    (lambda: RULE.negative(np.zeros((0, 4)), [], WH, (5, 0, 5)), "at least 1 for each of 3 scales, got"),
    (lambda: RULE.tiles(0, WH, 128), "Chips of 128 x 128 px cannot overlap by 128 px"),
])  # fmt: skip
def test_what_is_invalid_is_said(make, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        make()
