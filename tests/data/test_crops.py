import dataclasses
import multiprocessing
import subprocess
import sys
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from poseglass.core.affine import Affine, CropRule
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.core.view import View
from poseglass.core.warp import warp_image
from poseglass.data.crops import REDUCTIONS, Crops, _regions
from poseglass.data.loader import PlaceSampler, collate, load_batches
from poseglass.readers.labelled import LabelledImages
from poseglass.synthetic.people import synthetic_people
from poseglass.transforms import ColorJitter, HalfBody, Occlusion, RandomAffine, TransformError

hypothesis = pytest.importorskip("hypothesis")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies

HANDS = Skeleton("hands3", ("left_hand", "right_hand", "nose"))
COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.float32)


def blobs(size_wh: tuple[int, int], xy: np.ndarray, sigma: float) -> np.ndarray:
    """A red Gaussian at the left hand, a green one at the right, a blue one at the nose, on black."""
    image = np.zeros((size_wh[1], size_wh[0], 3), np.float32)
    for (px, py), color in zip(xy, COLORS, strict=True):
        x, y = (np.exp(-((np.arange(n) - p) ** 2) / (2 * sigma**2)) for n, p in zip(size_wh, (px, py), strict=True))
        image += np.outer(y, x).astype(np.float32)[..., None] * color
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def one_person(
    file: Path, size_wh: tuple[int, int], xy: np.ndarray, box: tuple[float, ...], sigma: float
) -> LabelledImages:
    pixels = cv2.cvtColor(blobs(size_wh, xy, sigma), cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(file), pixels, [cv2.IMWRITE_JPEG_QUALITY, 100, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111])
    person = Instances.from_keypoints(HANDS, xy[None], box_xyxy=np.array([box]))
    return LabelledImages("one", HANDS, (file,), [person], (1,), np.array([size_wh]))


def center_of(channel: np.ndarray) -> np.ndarray:
    """Centre of mass of what is bright, x y."""
    weight = np.clip(channel.astype(np.float64) - 40, 0, None)
    y, x = np.mgrid[: channel.shape[0], : channel.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


EVERYTHING = RandomAffine((0.6, 1.5), 60.0, shift=0.05, flip_probability=0.5, zoom_probability=0.3)
PLACES = {
    # name: image, keypoints, box, width of the blobs; the person's size decides how the image is decoded
    "full size": ((203, 157), [(80, 60), (110, 95), (95.5, 78.25)], (50, 30, 140, 130), 3.0),
    "a half": ((401, 399), [(150, 120), (260, 250), (200.5, 180.25)], (70, 70, 330, 330), 8.0),
    "a quarter": ((803, 801), [(300, 240), (520, 500), (400.5, 360.25)], (130, 130, 670, 670), 16.0),
    "an eighth and less": ((1401, 1399), [(500, 400), (950, 900), (700.5, 610.25)], (150, 150, 1250, 1250), 36.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("cached", [False, True])
def test_blobs_are_where_the_keypoints_say(tmp_path: Path, name: str, kind: str, cached: bool) -> None:
    """Image content agrees with coordinates through every augmentation, decode size, and the cache.

    OpenCV 4 interpolates between 1/32 pixels, OpenCV 5 exactly; a fifth of a crop pixel holds for both.
    """
    size_wh, points, box, sigma = PLACES[name]
    dataset = one_person(tmp_path / f"a.{kind}", size_wh, np.array(points), box, sigma)
    crops = Crops(dataset, InputSpec((96, 96), 1.3), (EVERYTHING,), seed=3)
    if cached:
        crops = crops.cached(10**9, tmp_path / "cache")
    flipped = 0
    for epoch in list(range(10)) * (2 if cached else 1):
        sample = crops[(epoch, 0, 96, 96)]
        flips = sample.to_source.flips
        flipped += flips
        # in a flipped image the hand that looks like a left one is the right one's blob
        channels = (1, 0, 2) if flips else (0, 1, 2)
        for keypoint, channel in enumerate(channels):
            expected = sample.instances.xy[0, keypoint]
            if (expected > 8).all() and (expected < 87).all():
                found = center_of(sample.image[..., channel])
                np.testing.assert_allclose(found, expected, atol=0.2)
        back = sample.to_source(sample.instances.xy[0].astype(np.float64))
        np.testing.assert_allclose(back, np.array(points)[[1, 0, 2] if flips else [0, 1, 2]], atol=1e-3)
    assert 0 < flipped < (20 if cached else 10)
    if crops.cache is not None:
        crops.cache.close()


def textured(size_wh: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = np.full((size_wh[1], size_wh[0], 3), 128.0, np.float32)
    for cell, strength in ((2, 8), (8, 20), (32, 40)):
        noise = rng.standard_normal((size_wh[1] // cell + 2, size_wh[0] // cell + 2, 3), np.float32)
        image += strength * cv2.resize(noise, size_wh, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def crowd(folder: Path, *, images: int = 3, people: int = 3, kind: str = "jpg") -> LabelledImages:
    """Textured images with people of all sizes, some partly outside."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    paths, labels, sizes = [], [], []
    for i in range(images):
        size_wh = (241 + 80 * i, 203 + 40 * i)
        paths.append(folder / f"{i}.{kind}")
        assert cv2.imwrite(str(paths[-1]), textured(size_wh, i))
        center = rng.uniform(0, 1, (people, 2)) * size_wh
        side = np.exp(rng.uniform(np.log(20), np.log(400), (people, 1)))
        xy = center[:, None] + rng.uniform(-0.5, 0.5, (people, 3, 2)) * side[:, None]
        box = np.concatenate([center - side / 2, center + side / 2], 1)
        labels.append(Instances.from_keypoints(HANDS, xy, box_xyxy=box))
        sizes.append(size_wh)
    return LabelledImages("crowd", HANDS, tuple(paths), labels, tuple(range(images)), np.array(sizes))


AUGMENT = (ColorJitter(0.3, 0.2, 0.1, 0.1), Occlusion(0.5, (0.1, 0.3)))


def test_a_part_gives_the_same_crop_as_the_whole_image(tmp_path: Path) -> None:
    """What no draw can see is left out; nothing that a draw sees is."""
    dataset = crowd(tmp_path)
    planned = Crops(dataset, InputSpec((64, 64)), (EVERYTHING,))
    # 64 is unplanned: no part is taken
    whole = Crops(dataset, InputSpec((64, 64)), (EVERYTHING,), sizes_wh=((32, 32),))
    for epoch in range(6):
        for i in range(len(planned)):
            a, b = planned[(epoch, i, 64, 64)], whole[(epoch, i, 64, 64)]
            difference = np.abs(a.image.astype(int) - b.image.astype(int))
            # Coordinates in float32 differ in the last bit by where the part begins.
            assert difference.max() <= 2
            assert (difference > 0).mean() < 0.02
            np.testing.assert_array_equal(a.instances.xy, b.instances.xy)


affines = st.builds(
    lambda low, high, degrees, shift, distribution, rotate, zoom: RandomAffine(
        (low, low + high), degrees, rotate, shift, 0.5, distribution, (1.0, 3.0), zoom
    ),
    st.floats(0.3, 1.2), st.floats(0, 1.5), st.floats(0, 180), st.floats(0, 0.3),
    st.sampled_from(["uniform", "normal"]), st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    affine=affines,
    side=st.floats(10, 3000),
    aspect=st.floats(0.4, 2.5),
    seed=st.integers(0, 99),
    rule=st.sampled_from(["edges", "msra", "udp"]),
)
def test_regions_hold_whatever_a_draw_sees(
    affine: RandomAffine, side: float, aspect: float, seed: int, rule: CropRule
) -> None:
    rng = np.random.default_rng(seed)
    size_wh = (96, 128)
    box = np.array([[100.0, 50.0, 100 + side * aspect, 50 + side]])
    regions = _regions(box, [size_wh, (64, 80)], affine, rule)[0]
    for _ in range(20):
        for wh in (size_wh, (64, 80)):
            to_crop = Affine.crop(box[0], wh, rule).then(affine.draw(wh, rng))
            level = next((i for i in (3, 2, 1) if to_crop.scale * REDUCTIONS[i] <= 1), 0)
            r = REDUCTIONS[level]
            seen = to_crop.inverse().box(np.array([-0.5, -0.5, wh[0] - 0.5, wh[1] - 0.5]))
            seen = (seen - (r - 1) / 2) / r
            assert (regions[level, :2] <= seen[:2] - 1).all()
            assert (regions[level, 2:] >= seen[2:] + 1).all()


@pytest.mark.parametrize("rule", ["msra", "udp"])
def test_crops_follow_the_input_s_rule(tmp_path: Path, rule: CropRule) -> None:
    """Labels and pixels move alike: the crop is the whole image warped by the rule's map."""
    dataset = crowd(tmp_path)
    ours, edges = (Crops(dataset, InputSpec((48, 64), crop=r)) for r in (rule, "edges"))
    for i in range(3):
        to_crop = Affine.crop(ours.box_xyxy[i], (48, 64), rule)
        sample = ours[(0, i, 48, 64)]
        np.testing.assert_allclose(sample.instances.xy[0], to_crop(ours.labels.xy[i]), atol=1e-3)
        assert np.nanmax(np.abs(sample.instances.xy[0] - edges[(0, i, 48, 64)].instances.xy[0])) > 0.1
        moved = warp_image(dataset.image(int(ours.people[i, 0])), to_crop, (48, 64))
        if to_crop.scale > 0.5:  # no reduced decoding
            assert np.abs(sample.image.astype(int) - moved).max() <= 2


def test_regions_are_no_larger_than_they_must(tmp_path: Path) -> None:
    """At scale 0.75 and 30 degrees: (cos 30 + sin 30) / 0.75 = 1.82 of the padded box, and a margin."""
    box = np.array([[0.0, 0.0, 256.0, 256.0]])
    regions = _regions(box, [(256, 256)], RandomAffine(), "edges")[0]
    side = 256 * (np.cos(np.pi / 6) + 0.5) / 0.75
    assert (regions[0, 2:] - regions[0, :2] <= side + 12).all()
    assert (regions[0, 2:] - regions[0, :2] >= side).all()
    assert not regions[1:].any()  # a half of the size never does: 0.75 is the most it shrinks
    without = _regions(box, [(256, 256)], None, "edges")[0]
    assert (without[0, 2:] - without[0, :2] <= 256 + 12).all()


def test_reduced_decoding_shows_the_same(tmp_path: Path) -> None:
    """A crop from a reduced image differs from one of the full image by interpolation alone."""
    dataset = crowd(tmp_path)
    reduced, asked = Crops(dataset, InputSpec((48, 48)), (EVERYTHING,)), []

    class Full(LabelledImages):
        def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
            asked.append(reduce)
            return super().image(index)

    d = dataset
    full = Crops(
        Full(d.name, d.skeleton, d.paths, d.labels, d.image_ids, d.sizes_wh), InputSpec((48, 48)), (EVERYTHING,)
    )
    for epoch in range(4):
        for i in range(len(reduced)):
            a, b = reduced[(epoch, i, 48, 48)].image.astype(float), full[(epoch, i, 48, 48)].image.astype(float)
            assert np.abs(a - b).mean() < 4
            # shifted by half a pixel of the reduced image the difference would be several times this
    assert set(asked) >= {1, 2, 4}


def test_workers_do_not_change_a_bit(tmp_path: Path) -> None:
    crops = Crops(crowd(tmp_path), InputSpec((32, 32)), (EVERYTHING, *AUGMENT), seed=7)
    sampler = PlaceSampler(len(crops), batch_size=4, sizes_wh=[(32, 32), (48, 48)], seed=1)
    alone, together = (list(load_batches(crops, sampler, workers=n)) for n in (0, 2))
    assert len(alone) == len(together) == len(sampler) == 2 * (len(crops) // 4)
    for a, b in zip(alone, together, strict=True):
        assert (a.images == b.images).all()
        assert (a.targets.xy == b.targets.xy).all()
        assert a.sources == b.sources
    assert alone[0].images.shape == (4, 32, 32, 3)
    assert alone[-1].images.shape == (4, 48, 48, 3)


def test_augmentation_depends_on_seed_epoch_and_person_only(tmp_path: Path) -> None:
    dataset = crowd(tmp_path)
    one, same = (Crops(dataset, InputSpec((32, 32)), (EVERYTHING, *AUGMENT), seed=7) for _ in range(2))
    first = one[(2, 1, 32, 32)]
    for i in range(4):
        same[(i, i, 32, 32)]  # whatever was made before
    again = same[(2, 1, 32, 32)]
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.instances.xy, again.instances.xy)
    other_seed = Crops(dataset, InputSpec((32, 32)), (EVERYTHING, *AUGMENT), seed=8)
    for other in (one[(3, 1, 32, 32)], other_seed[(2, 1, 32, 32)]):
        assert not np.array_equal(first.instances.xy, other.instances.xy)


@pytest.mark.parametrize("start", [0, 1, 4, 5, 9, 14])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_sampler_resumes_at_any_step_and_splits_among_processes(start: int, world: int) -> None:
    sizes = [(32, 32), (32, 32), (48, 64)]

    def batches(start_step: int, rank: int) -> list:
        return list(
            PlaceSampler(23, batch_size=4, sizes_wh=sizes, seed=3, start_step=start_step, rank=rank, world=world)
        )

    parts = [batches(start, rank) for rank in range(world)]
    assert all(len(p) == 15 - start for p in parts)
    whole = list(PlaceSampler(23, batch_size=4, sizes_wh=sizes, seed=3))
    for step, shares in enumerate(zip(*parts, strict=True)):
        places = [place for share in shares for place in share]
        assert sorted(places) == sorted(whole[start + step])  # no overlap, nothing lost
        assert {len(s) for s in shares} == {4 // world}
    for epoch in range(3):
        seen = [place[1] for batch in whole[epoch * 5 : epoch * 5 + 5] for place in batch]
        assert len(set(seen)) == 20
    assert [p[1] for p in whole[0]] != [p[1] for p in whole[5]]
    assert whole[-1][0][2:] == (48, 64)


def test_bad_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"larger than the data set of 5 examples\. Set train.batch_size"):
        PlaceSampler(5, batch_size=8, sizes_wh=[(32, 32)], seed=0)
    with pytest.raises(ValueError, match="batch of 8 cannot be divided among 3 processes"):
        PlaceSampler(50, batch_size=8, sizes_wh=[(32, 32)], seed=0, world=3)


def test_who_becomes_a_crop(tmp_path: Path) -> None:
    xy = np.full((4, 3, 2), np.nan)
    xy[0, 0], xy[1, 1], xy[3, 2] = (30, 40), (50, 60), (70, 20)
    box = np.array([(10, 10, 60, 70), (np.nan,) * 4, (0, 0, 50, 50), (5, 5, 5, 9)])
    people = Instances.from_keypoints(HANDS, xy, box_xyxy=box, extra={"crowd": np.array([True, False, False, False])})
    file = tmp_path / "a.png"
    assert cv2.imwrite(str(file), textured((100, 80), 0))
    crops = Crops(LabelledImages("d", HANDS, (file,), [people], (1,)), InputSpec((32, 32)))
    # a crowd and a person without a keypoint are left out; without a box one is made around the points
    assert crops.people.tolist() == [[0, 1], [0, 3]]
    for i, keypoint in ((0, 1), (1, 2)):
        sample = crops[(0, i, 32, 32)]
        np.testing.assert_allclose(sample.instances.xy[0, keypoint], 15.5, atol=1e-3)
    nobody = LabelledImages("d", HANDS, (file,), [people[2]], (1,))
    with pytest.raises(ValueError, match="None of the 1 images has a person with a labelled keypoint"):
        Crops(nobody, InputSpec((32, 32)))


def test_what_crops_leave_out_or_make_up_is_noted(tmp_path: Path) -> None:
    xy = np.full((4, 3, 2), np.nan)
    xy[0, 0], xy[1, 1], xy[3, 2] = (30, 40), (50, 60), (90, 20)
    box = np.array([(10, 10, 60, 70), (np.nan,) * 4, (0, 0, 50, 50), (5, 5, 15, 19)])
    people = Instances.from_keypoints(HANDS, xy, box_xyxy=box, extra={"crowd": np.array([True, False, False, False])})
    notes = Crops(LabelledImages("d", HANDS, (tmp_path / "a.png",), [people], (1,)), InputSpec((32, 32))).notes
    assert len(notes) == 4
    assert "1 crop of 2 show none of the person's keypoints" in notes[0]
    assert "the first keypoint is at 90, 20" in notes[0]
    for note, start in zip(notes[1:], ("1 annotation without a usable box", "1 crowd", "1 annotation"), strict=True):
        assert note.startswith(start)
    whole = LabelledImages("d", HANDS, (tmp_path / "a.png",), [people[[1]]], (1,))
    assert Crops(whole, InputSpec((32, 32))).notes == (
        "1 annotation without a usable box: the crop is made around the keypoints.",
    )


def test_crops_that_show_no_keypoint_at_all_are_refused(tmp_path: Path) -> None:
    xy = np.random.default_rng(0).uniform(0, 1, (5, 3, 2))  # fractions, say
    box = np.tile([100.0, 100.0, 300.0, 400.0], (5, 1))
    people = Instances.from_keypoints(HANDS, xy, box_xyxy=box)
    with pytest.raises(
        ValueError, match=r"No keypoint of 5 people lies in the crop .*a.png, whose box is 100, 100, 300"
    ):
        Crops(LabelledImages("d", HANDS, (tmp_path / "a.png",), [people], (1,)), InputSpec((32, 32)))


def test_nothing_is_mirrored_where_no_pair_is_known(tmp_path: Path) -> None:
    def flips(skeleton: Skeleton) -> list[bool]:
        data = crowd(tmp_path, images=2, people=2)
        labels = [dataclasses.replace(p, skeleton=skeleton) for p in data.labels]
        crops = Crops(LabelledImages("d", skeleton, data.paths, labels, data.image_ids), InputSpec((32, 32)),
                      (RandomAffine(),))  # fmt: skip
        return [crops[(epoch, i, 32, 32)].to_source.flips for epoch in range(8) for i in range(4)]

    k = len(crowd(tmp_path, images=1, people=1).skeleton)
    plain = tuple(f"p{i}" for i in range(k))
    assert not any(flips(Skeleton("s", plain)))
    assert not any(flips(Skeleton("s", ("left_a", *plain[1:]))))
    told = flips(Skeleton("s", plain, flip_pairs=()))
    assert any(told)
    assert told == flips(Skeleton("s", ("left_a", "right_a", *plain[2:])))  # the same draws


def test_a_person_outside_the_image_is_black(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    assert cv2.imwrite(str(file), np.full((80, 100, 3), 255, np.uint8))
    person = Instances.from_keypoints(
        HANDS, np.full((1, 3, 2), 500.0), box_xyxy=np.array([[450.0, 450.0, 550.0, 550.0]])
    )
    crops = Crops(LabelledImages("d", HANDS, (file,), [person], (1,)), InputSpec((32, 32)), (EVERYTHING,))
    for c in (crops, crops.cached(10**7, tmp_path / "cache")):
        assert all(not c[(epoch, 0, 32, 32)].image.any() for epoch in range(3))


def test_a_batch_holds_what_the_samples_hold(tmp_path: Path) -> None:
    crops = Crops(crowd(tmp_path), InputSpec((32, 40)), (RandomAffine(),))
    samples = [crops[(0, i, 32, 40)] for i in range(4)]
    batch = collate(samples)
    assert batch.images.shape == (4, 40, 32, 3)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(batch.images[i].numpy(), sample.image)
        np.testing.assert_array_equal(batch.targets.xy[i].numpy(), sample.instances.xy)
        np.testing.assert_allclose(batch.to_source[i].numpy(), sample.to_source.matrix)
        assert batch.sources[i] == sample.source
    unknown = Instances.from_keypoints(HANDS, np.array([[(1.0, 2.0), (np.nan, np.nan), (3.0, 4.0)]]))
    part = collate([type(samples[0])(samples[0].image, unknown, Affine.identity(), "s")])
    assert part.targets.known.tolist() == [[[1.0, 0.0, 1.0]]]
    assert part.targets.xy[0, 0, 1].tolist() == [0.0, 0.0]
    assert part.targets.occluded is None
    hidden = dataclasses.replace(unknown, keypoint_extra={"occluded": np.array([[True, False, False]])})
    told = [type(samples[0])(samples[0].image, one, Affine.identity(), "s") for one in (hidden, unknown)]
    both = collate([told[0], told[0]])
    assert both.targets.occluded is not None
    assert both.targets.occluded.tolist() == [[[True, False, False]]] * 2
    assert collate(told).targets.occluded is None  # of one of them nobody says


def of_people(count: int, size_wh: tuple[int, int] = (8, 6)) -> PoseSample:
    """A sample with so many people; keypoint k of person n lies at (n, k)."""
    xy = np.stack(np.meshgrid(np.arange(count), np.arange(3), indexing="ij"), -1).astype(np.float64)
    people = Instances.from_keypoints(HANDS, xy, extra={"crowd": np.arange(count) % 7 == 3})
    people = dataclasses.replace(people, label=np.arange(count) % 2)
    return PoseSample(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), people, Affine.identity(), f"{count}")


def test_a_batch_of_samples_with_0_1_and_30_people() -> None:
    batch = collate([of_people(0), of_people(1), of_people(30)])
    targets = batch.targets
    assert targets.xy.shape == (3, 30, 3, 2)
    assert targets.valid.sum(1).tolist() == [0, 1, 30]
    assert targets.known.sum((1, 2)).tolist() == [0.0, 3.0, 90.0]
    assert targets.xy[2, 29, 2].tolist() == [29.0, 2.0]
    assert targets.label[2].tolist() == [n % 2 for n in range(30)]
    assert targets.crowd.sum(1).tolist() == [0, 0, 4]
    assert targets.occluded is None
    assert targets.xyz_mm is None
    assert collate([of_people(0)] * 2).targets.xy.shape == (2, 1, 3, 2)
    assert batch.size_wh == (8, 6)


def test_what_is_unknown_in_space_or_has_no_box_is_told_apart() -> None:
    sample = of_people(2)
    xyz = np.ones((2, 3, 3))
    xyz[0, 1] = np.nan
    people = dataclasses.replace(sample.instances, xyz_mm=xyz, box_xyxy=np.array([[np.nan] * 4, [1.0, 1.0, 2.0, 2.0]]))
    one = people[1]
    batch = collate([dataclasses.replace(sample, instances=p) for p in (people, one)])
    assert batch.targets.xyz_mm is not None
    assert batch.targets.xyz_mm.isnan().any(-1).tolist() == [
        [[False, True, False], [False] * 3],
        [[False] * 3, [True] * 3],
    ]
    assert batch.targets.box_xyxy.tolist() == [[[0.0] * 4, [1.0, 1.0, 2.0, 2.0]], [[1.0, 1.0, 2.0, 2.0], [0.0] * 4]]


def test_views_of_two_sizes_do_not_share_a_batch() -> None:
    with pytest.raises(ValueError, match="A batch holds views of one size, got 8 x 6 and 9 x 6 pixels"):
        collate([of_people(1), of_people(1, (9, 6))])


def test_what_is_hidden_is_flipped_with_the_rest(tmp_path: Path) -> None:
    pair = Skeleton("pair", ("left_hand", "right_hand"))
    path = tmp_path / "a.png"
    assert cv2.imwrite(str(path), np.zeros((20, 20, 3), np.uint8))
    person = Instances.from_keypoints(
        pair, np.array([[(5.0, 5.0), (15.0, 5.0)]]), keypoint_extra={"occluded": np.array([[True, False]])}
    )
    crops = Crops(LabelledImages("d", pair, (path,), (person,), (1,)), InputSpec((20, 20)), (RandomAffine(),))
    seen = set()
    for epoch in range(20):
        batch = collate([crops[(epoch, 0, 20, 20)]])
        assert batch.targets.occluded is not None
        seen.add(tuple(batch.targets.occluded[0, 0].tolist()))
    assert seen == {(True, False), (False, True)}


def test_the_missing_image_is_named(tmp_path: Path) -> None:
    dataset = crowd(tmp_path)
    crops = Crops(dataset, InputSpec((32, 32)), (EVERYTHING,))
    dataset.paths[0].write_bytes(dataset.paths[0].read_bytes()[:300])
    with pytest.raises(ValueError, match=r"0\.jpg is a damaged or truncated image"):
        crops[(0, 0, 32, 32)]
    dataset.paths[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"No such image: .*0\.jpg"):
        crops.cached(10**7, tmp_path / "cache")[(0, 0, 32, 32)]


def test_the_first_batches_do_not_wait_for_the_last(tmp_path: Path) -> None:
    crops = Crops(crowd(tmp_path), InputSpec((16, 16)))
    sampler = PlaceSampler(len(crops), batch_size=2, sizes_wh=[(16, 16)] * 10_000, seed=0)
    assert len(list(islice(load_batches(crops, sampler, workers=0), 2))) == 2


def children() -> int:
    return len(multiprocessing.active_children())


def test_closing_ends_the_loader_processes(tmp_path: Path) -> None:
    crops = Crops(crowd(tmp_path), InputSpec((16, 16)))
    sampler = PlaceSampler(len(crops), batch_size=2, sizes_wh=[(16, 16)] * 100, seed=0)
    before = children()
    batches = load_batches(crops, sampler, workers=2)
    next(batches)
    assert children() == before + 2
    batches.close()
    batches.close()
    assert children() == before
    assert list(batches) == []


def test_processes_end_though_pytorch_renamed_what_ends_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crops = Crops(crowd(tmp_path), InputSpec((16, 16)))
    sampler = PlaceSampler(len(crops), batch_size=2, sizes_wh=[(16, 16)] * 100, seed=0)
    before = children()
    batches = load_batches(crops, sampler, workers=2)
    next(batches)
    assert children() == before + 2
    iterator = batches._batches
    with monkeypatch.context() as patch:
        patch.delattr(type(iterator), "_shutdown_workers")
        batches.close()  # raises nothing: a killed process is no accident here
        assert children() == before
    iterator._shutdown_workers()  # type: ignore[attr-defined]  # its own end, by garbage collection, is no error
    assert list(batches) == []


NOBODY_CLOSES = """
import sys
from poseglass.core.input_spec import InputSpec
from poseglass.synthetic import synthetic_people
from poseglass.data.crops import Crops
from poseglass.data.loader import PlaceSampler, load_batches
crops = Crops(synthetic_people(4, seed=1, size_wh=(32, 32)), InputSpec((16, 16)))
batches = load_batches(crops, PlaceSampler(4, batch_size=2, sizes_wh=[(16, 16)] * 1000, seed=0), workers=2)
next(batches)
kept = sys.modules["kept"] = [batches]
"""


@pytest.mark.slow
def test_a_program_ends_though_nobody_closed_its_loader() -> None:
    done = subprocess.run([sys.executable, "-c", NOBODY_CLOSES], timeout=120, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Rotated:
    """A Transform as a user writes it."""

    def __call__(self, sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        width, height = sample.size_wh
        middle = ((width - 1) / 2, (height - 1) / 2)
        sample = sample.warped(Affine.about(middle, degrees=rng.uniform(-30, 30), shift_xy=(3.0, -2.0)))
        return sample.flipped() if rng.random() < 0.5 else sample


class Moved:
    """A ViewTransform as a user writes it."""

    def choose_view(self, view: View, person: Instances, spec: InputSpec, rng: np.random.Generator) -> View:
        if rng.random() < 0.5:
            return view
        return view.then(Affine.about((0.0, 0.0), shift_xy=(float(rng.uniform(-6, 6)), 4.0)))


def image_alone(sample: PoseSample, rng: np.random.Generator) -> PoseSample:
    return dataclasses.replace(sample, image=sample.image[:, ::-1])


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("name", PLACES)
def test_blobs_are_where_keypoints_are_after_custom_transforms(tmp_path: Path, name: str, cached: bool) -> None:
    size_wh, points, box, sigma = PLACES[name]
    dataset = one_person(tmp_path / "a.jpg", size_wh, np.array(points), box, sigma)
    crops = Crops(dataset, InputSpec((96, 96), 1.3), (Rotated(), EVERYTHING, Moved()), seed=3)
    if cached:
        crops = crops.cached(10**9, tmp_path / "cache")
    compared = 0
    for epoch in range(12):
        sample = crops[(epoch, 0, 96, 96)]
        flips = sample.to_source.flips
        for keypoint, channel in enumerate((1, 0, 2) if flips else (0, 1, 2)):
            expected = sample.instances.xy[0, keypoint]
            if (expected > 14).all() and (expected < 81).all():
                np.testing.assert_allclose(center_of(sample.image[..., channel]), expected, atol=0.5)
                compared += 1
        back = sample.to_source(sample.instances.xy[0].astype(np.float64))
        np.testing.assert_allclose(back, np.array(points)[[1, 0, 2] if flips else [0, 1, 2]], atol=2e-3)
    assert compared > 8
    if crops.cache is not None:
        crops.cache.close()


def test_a_custom_view_is_the_same_from_the_cache(tmp_path: Path) -> None:
    """What the regions do not foresee comes from the file; bit for bit the same either way."""
    files = Crops(crowd(tmp_path), InputSpec((32, 32)), (EVERYTHING, Moved()), seed=7)
    cached = files.cached(10**9, tmp_path / "cache")
    for epoch in (0, 1, 0, 1):
        for i in range(len(files)):
            a, b = files[(epoch, i, 32, 32)], cached[(epoch, i, 32, 32)]
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.instances.xy, b.instances.xy)
    assert cached.cache is not None
    cached.cache.close()


def test_transforms_and_photometrics_keep_their_order(tmp_path: Path) -> None:
    """Covered and then rotated is not rotated and then covered; what chooses the view goes first wherever it stands."""
    dataset = crowd(tmp_path)
    orders = [(Rotated(), Occlusion(1.0)), (Occlusion(1.0), Rotated()), (Rotated(), Occlusion(1.0), Moved())]
    first, second, third = (Crops(dataset, InputSpec((32, 32)), order)[(0, 0, 32, 32)] for order in orders)
    assert not np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, third.image)
    rng = np.random.default_rng([0, 0, 0])
    plain = Crops(dataset, InputSpec((32, 32)))[(0, 0, 32, 32)]
    by_hand = Rotated()(plain, rng)
    np.testing.assert_array_equal(first.image, Occlusion(1.0).repaint(by_hand.image, rng))
    np.testing.assert_array_equal(first.instances.xy, by_hand.instances.xy)


def test_a_half_body_is_drawn_first_wherever_it_stands() -> None:
    dataset = synthetic_people(3, seed=3, size_wh=(96, 96), skeleton=COCO17)
    half = HalfBody(1.0, more_than=2)
    one, other = (Crops(dataset, InputSpec((32, 32)), order) for order in ((half, EVERYTHING), (EVERYTHING, half)))
    for i in range(3):
        np.testing.assert_array_equal(one[(0, i, 32, 32)].image, other[(0, i, 32, 32)].image)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        (
            (ColorJitter(), image_alone),
            r"augment\[1\] '.*test_crops:image_alone' moves the image and leaves the keypoi",
        ),
        ((5,), r"augment\[0\] 'builtins:int' must have one of three methods"),
        ((Rotated,), r"augment\[0\] '.*test_crops:Rotated' is a class; list an instance of it: Rotated\("),
        ((RandomAffine(), RandomAffine()), "takes one RandomAffine: scale, rotation, shift and flip are one map"),
        ((HalfBody(), HalfBody()), "takes one HalfBody: it chooses the box"),
    ],
)
def test_augmentations_that_separate_image_and_labels_are_refused(tmp_path: Path, augment: tuple, message: str) -> None:
    with pytest.raises(TransformError, match=message):
        Crops(crowd(tmp_path), InputSpec((32, 32)), augment)


def test_what_the_probe_cannot_find_is_refused_when_it_happens(tmp_path: Path) -> None:
    """It is well behaved on the probe's images, and gives another size on real ones."""

    def unsteady(sample: PoseSample, rng: np.random.Generator) -> PoseSample:
        return sample if sample.source == "probe" else sample.warped(Affine.identity(), (16, 24))

    crops = Crops(crowd(tmp_path), InputSpec((32, 32)), (unsteady,))
    with pytest.raises(
        TransformError, match=r"A view of 32 x 32 pixels with one person became 16 x 24 with 1 in epoch 2"
    ):
        crops[(2, 1, 32, 32)]
