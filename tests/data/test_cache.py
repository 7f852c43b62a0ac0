import os
import pickle
import resource
import warnings
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.data import cache as crop_cache
from poseglass.data.cache import CropCache
from poseglass.data.crops import Crops
from poseglass.data.loader import PlaceSampler, load_batches
from poseglass.readers import write_coco
from poseglass.readers.labelled import LabelledImages
from poseglass.readers.mixed import mixed
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe
from poseglass.transforms import ColorJitter, Occlusion, RandomAffine

HANDS = Skeleton("hands3", ("left_hand", "right_hand", "nose"))
AFFINE = RandomAffine((0.6, 1.5), 50.0, shift=0.05, zoom_probability=0.3)
AUGMENT = (ColorJitter(0.3, 0.2, 0.1, 0.1), Occlusion(0.5, (0.1, 0.3)))
GB = 10**9


def crowd(folder: Path, kinds: tuple[str, ...] = ("jpg", "png", "jpg"), people: int = 3) -> LabelledImages:
    """Textured images with people of all sizes, some partly outside; a JPEG that EXIF turns among them."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    paths, labels = [], []
    for i, kind in enumerate(kinds):
        size_wh = (400, 288) if i == 2 else (241 + 80 * i, 203 + 40 * i)
        coarse = rng.integers(0, 256, (size_wh[1] // 4 + 1, size_wh[0] // 4 + 1, 3), dtype=np.uint8)
        pixels = Image.fromarray(cv2.resize(coarse, size_wh, interpolation=cv2.INTER_LINEAR))
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 2 else 1
        paths.append(folder / f"{i}.{kind}")
        pixels.save(paths[-1], exif=exif)
        center = rng.uniform(0, 1, (people, 2)) * size_wh
        side = np.exp(rng.uniform(np.log(30), np.log(400), (people, 1)))
        xy = center[:, None] + rng.uniform(-0.5, 0.5, (people, 3, 2)) * side[:, None]
        box = np.concatenate([center - side / 2, center + side / 2], 1)
        labels.append(Instances.from_keypoints(HANDS, xy, box_xyxy=box))
    return LabelledImages("crowd", HANDS, tuple(paths), labels, tuple(range(len(kinds))))


def made(dataset: LabelledImages, **more: object) -> Crops:
    return Crops(dataset, InputSpec((48, 48)), (AFFINE, *AUGMENT), seed=1, **more)  # type: ignore[arg-type]


def assert_same(one: Crops, other: Crops, *, epochs: tuple[int, ...] = (0, 1, 2, 3), size: int = 48) -> None:
    for epoch in epochs:
        for i in range(len(one)):
            a, b = one[(epoch, i, size, size)], other[(epoch, i, size, size)]
            np.testing.assert_array_equal(a.image, b.image)
            np.testing.assert_array_equal(a.instances.xy, b.instances.xy)
            np.testing.assert_array_equal(a.to_source.matrix, b.to_source.matrix)


def cache_of(crops: Crops) -> CropCache:
    assert crops.cache is not None
    return crops.cache


class Unread(LabelledImages):
    """Its images may not be decoded."""

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        raise AssertionError(f"image {index} was decoded at 1/{reduce}")


def unread(dataset: LabelledImages) -> Unread:
    return Unread(dataset.name, dataset.skeleton, dataset.paths, dataset.labels, dataset.image_ids, dataset.sizes_wh)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_crops_from_the_cache_are_the_same_bit_for_bit(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path)
    plain = made(dataset)
    cached = plain.cached(GB, root)
    assert cache_of(cached).num_fitting == cache_of(cached).num_people == 9
    assert_same(plain, cached)  # while it is filled
    assert_same(plain, cached)  # and from it
    assert cached.cache is not None
    assert plain.cache is None


def test_a_second_run_decodes_nothing(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path)
    first = made(dataset).cached(GB, root)
    for i in range(len(first)):
        first[(0, i, 48, 48)]  # one draw each stores what any draw needs
    cache_of(first).close()
    second = made(unread(dataset)).cached(GB, root)
    assert_same(made(dataset), second, epochs=tuple(range(5, 12)))
    with pytest.raises(AssertionError, match="was decoded"):
        made(unread(dataset))[(0, 0, 48, 48)]


def test_all_crop_sizes_of_a_run_come_from_one_cache(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg", "jpg"))
    sizes = ((24, 24), (48, 48))
    plain, cached = made(dataset, sizes_wh=sizes), made(dataset, sizes_wh=sizes).cached(GB, root)
    for size in (24, 48):
        assert_same(plain, cached, size=size, epochs=(0, 1))
    dark = made(unread(dataset), sizes_wh=sizes).cached(GB, root)
    assert cache_of(dark).folder == cache_of(cached).folder
    for size in (24, 48):
        assert_same(plain, dark, size=size, epochs=(2, 3, 4, 5))
    assert_same(made(dataset, sizes_wh=sizes), cached, size=36, epochs=(0,))  # another size: from the files


def test_the_limit_holds_and_the_summary_names_how_many_fit(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path)
    plain = made(dataset)
    everybody = cache_of(plain.cached(GB, root)).planned_bytes
    limit = everybody // 2
    cached = plain.cached(limit, tmp_path / "small")
    cache = cache_of(cached)
    assert 0 < cache.num_fitting < cache.num_people == 9
    assert f"{cache.num_fitting} of 9 people fit" in cache.summary
    assert "raise data.cache_gb" in cache.summary
    assert "all 9 people fit" in cache_of(plain.cached(GB, root)).summary
    assert_same(plain, cached)
    assert_same(plain, cached)
    assert cache.planned_bytes <= limit
    assert (cache.folder / "crops.bin").stat().st_size <= limit
    fitting = [i for i in range(9) if cache.fits(i)]
    dark = made(unread(dataset)).cached(limit, tmp_path / "small")
    for i in range(9):
        if i in fitting:
            dark[(9, i, 48, 48)]
        else:
            with pytest.raises(AssertionError, match="was decoded"):
                dark[(9, i, 48, 48)]
    assert cache_of(plain.cached(0, tmp_path / "none")).num_fitting == 0


def test_a_larger_limit_keeps_what_is_stored(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path)
    plain = made(dataset)
    everybody = cache_of(plain.cached(GB, tmp_path / "other")).planned_bytes
    small = plain.cached(everybody // 2, root)
    assert_same(plain, small, epochs=(0,))
    fitting = [i for i in range(9) if cache_of(small).fits(i)]
    large = made(unread(dataset)).cached(GB, root)
    assert cache_of(large).num_fitting == 9
    for i in fitting:
        np.testing.assert_array_equal(large[(3, i, 48, 48)].image, plain[(3, i, 48, 48)].image)


def test_a_changed_image_is_not_read_from_the_cache(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg",))
    cached = made(dataset).cached(GB, root)
    before = [cached[(0, i, 48, 48)].image for i in range(3)]
    pixels = np.asarray(Image.open(dataset.paths[0]))
    Image.fromarray(255 - pixels).save(dataset.paths[0], quality=95)
    os.utime(dataset.paths[0], ns=(1, 1))  # even where size and clock would not tell
    assert_same(made(dataset), cached)
    again = made(dataset).cached(GB, root)
    assert_same(made(dataset), again)
    assert any(not np.array_equal(b, again[(0, i, 48, 48)].image) for i, b in enumerate(before))
    dataset.paths[0].unlink()
    with pytest.raises(FileNotFoundError, match=r"No such image: .*0\.jpg"):
        again[(0, 0, 48, 48)]


def test_another_recipe_has_another_plan(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg", "jpg"))
    base = made(dataset).cached(GB, root)
    other_names = crowd(tmp_path / "elsewhere", ("jpg", "jpg"))
    moved = LabelledImages("d", HANDS, dataset.paths, [p[::-1] for p in dataset.labels], (1, 2))  # type: ignore[index]
    others = [
        Crops(dataset, InputSpec((64, 64)), (AFFINE,)),
        Crops(dataset, InputSpec((48, 48), padding=1.5), (AFFINE,)),
        Crops(dataset, InputSpec((48, 48)), (RandomAffine((0.5, 1.5), 50.0, shift=0.05),)),
        Crops(dataset, InputSpec((48, 48)), (RandomAffine((0.6, 1.5), 20.0, shift=0.05),)),
        Crops(dataset, InputSpec((48, 48))),
        made(other_names),
        made(moved),
    ]
    folders = [cache_of(base).folder] + [cache_of(c.cached(GB, root)).folder for c in others]
    assert len(set(folders)) == len(folders)
    # colours, seed and epochs do not change what is kept
    same = Crops(dataset, InputSpec((48, 48), mean=(0.5,) * 3), (AFFINE,), seed=9)
    assert cache_of(same.cached(GB, root)).folder == folders[0]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "zeroed", "cut off", "scrambled", "heads", "shape"])
def test_damaged_cells_are_made_again(tmp_path: Path, root: Path, damage: str) -> None:
    dataset = crowd(tmp_path, ("jpg", "png"))
    plain, cached = made(dataset), made(dataset).cached(GB, root)
    assert_same(plain, cached, epochs=(0,))
    file = cache_of(cached).folder / "crops.bin"
    content = np.fromfile(file, np.uint8)
    rng = np.random.default_rng(0)
    if damage == "flipped":
        content[rng.integers(0, len(content), 300)] ^= 0x40
    elif damage == "zeroed":
        content[4096 * (len(content) // 8192) :] = 0
    elif damage == "cut off":
        content = content[: len(content) // 3]
    elif damage == "scrambled":
        content = rng.integers(0, 256, len(content), dtype=np.uint8)
    else:
        starts = [i for i in range(0, len(content) - 64, 64) if content[i : i + 8].tobytes() == b"pgcrop1\0"]
        assert len(starts) >= 6
        for start in starts:  # the last is where x0 lies
            content[start + (12 if damage == "heads" else 32)] ^= 1
    content.tofile(file)
    assert_same(plain, cached)
    dark = made(unread(dataset)).cached(GB, root)
    assert_same(plain, dark, epochs=(5,))  # all whole again


def test_a_deleted_cache_is_made_again(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg",))
    plain, cached = made(dataset), made(dataset).cached(GB, root)
    assert_same(plain, cached, epochs=(0,))
    for file in cache_of(cached).folder.iterdir():
        file.unlink()
    assert_same(plain, cached)  # an open file lives on
    assert_same(plain, made(dataset).cached(GB, root))


def test_a_full_disk_stops_storing_with_one_warning(tmp_path: Path, root: Path) -> None:
    """The limit of file sizes stands in for the full disk: the operating system refuses the same call."""
    dataset = crowd(tmp_path)
    plain, cached = made(dataset), made(dataset).cached(GB, root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (cache_of(cached).planned_bytes // 2, hard))
    try:
        with pytest.warns(RuntimeWarning, match=r"crop cache stores nothing further: .* cannot be written") as caught:
            assert_same(plain, cached)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(caught) == 1
    assert_same(plain, cached)  # room again: it stays off in this run, and goes on in the next
    assert_same(plain, made(dataset).cached(GB, root))


def test_a_folder_that_cannot_be_used_switches_the_cache_off(tmp_path: Path) -> None:
    dataset = crowd(tmp_path, ("jpg",))
    (tmp_path / "file").write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=r"The crop cache is off: .* POSEGLASS_CACHE .* data\.cache_gb=0"):
        crops = made(dataset).cached(GB, tmp_path / "file" / "cache")
    assert crops.cache is None
    assert_same(made(dataset), crops)


def test_a_nearly_full_disk_bounds_the_plan(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = made(crowd(tmp_path))
    everybody = cache_of(plain.cached(GB, tmp_path / "other")).planned_bytes
    monkeypatch.setattr(crop_cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=everybody // 2))
    cache = cache_of(plain.cached(GB, root))
    assert 0 < cache.num_fitting < 9
    assert cache.planned_bytes <= 0.45 * everybody + 1


def test_old_plans_make_room_unless_they_are_in_use(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path)
    one = made(dataset).cached(GB, root)
    assert_same(made(dataset), one, epochs=(0,))
    size = cache_of(one).planned_bytes
    other = Crops(dataset, InputSpec((48, 48), padding=1.3), (AFFINE,))
    held = cache_of(other.cached(int(1.2 * size), root))
    assert cache_of(one).folder.is_dir()
    assert held.planned_bytes <= 0.2 * size  # what the bound leaves beside the one in use
    held.close()
    folder = cache_of(one).folder
    cache_of(one).close()
    free = cache_of(other.cached(int(1.2 * size), root))
    assert not folder.exists()
    assert free.num_fitting > held.num_fitting
    third = Crops(dataset, InputSpec((48, 48), padding=1.4), (AFFINE,))
    free.close()
    assert cache_of(third.cached(GB, root)).num_fitting == 9
    assert free.folder.is_dir()  # room for both: nothing is deleted


def test_several_processes_fill_it_at_once(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg", "png", "jpg", "jpg"))
    plain, cached = made(dataset), made(dataset).cached(GB, root)
    sampler = PlaceSampler(len(plain), batch_size=3, sizes_wh=[(48, 48)] * 3, seed=0)
    for a, b in zip(load_batches(plain, sampler, workers=0), load_batches(cached, sampler, workers=2), strict=True):
        assert (a.images == b.images).all()
    assert_same(plain, made(unread(dataset)).cached(GB, root), epochs=(9,))


def test_it_can_be_sent_to_a_new_process(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg",))
    cached = made(dataset).cached(GB, root)
    assert_same(made(dataset), cached, epochs=(0,))
    sent = pickle.loads(pickle.dumps(cached))
    assert_same(cached, sent, epochs=(1,))


def test_a_repeated_person_is_kept_once(tmp_path: Path, root: Path) -> None:
    dataset = crowd(tmp_path, ("jpg", "jpg"))
    once = made(dataset).cached(GB, root)
    twice = Crops(mixed([dataset, dataset]), InputSpec((48, 48)), (AFFINE, *AUGMENT), seed=1).cached(GB, root)
    assert len(twice) == 2 * len(once)
    assert cache_of(twice).planned_bytes == cache_of(once).planned_bytes
    assert_same(Crops(twice.dataset, InputSpec((48, 48)), (AFFINE, *AUGMENT), seed=1), twice)


def test_images_that_are_no_files_are_not_kept(tmp_path: Path, root: Path) -> None:
    class Drawn(LabelledImages):
        def source(self, index: int) -> str:
            return f"drawn/{index}"

    d = crowd(tmp_path, ("jpg",))
    drawn = made(Drawn(d.name, d.skeleton, d.paths, d.labels, d.image_ids))
    cached = drawn.cached(GB, root)
    assert cache_of(cached).num_fitting == 0
    assert_same(drawn, cached)


def test_images_that_come_larger_than_planned_are_not_kept(tmp_path: Path, root: Path) -> None:
    """A turned JPEG whose sides do not divide comes at full size: there is no place for that."""
    dataset = crowd(tmp_path, ("jpg",))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(dataset.paths[0]).resize((403, 301)).save(dataset.paths[0], exif=exif)
    plain, cached = made(dataset), made(dataset).cached(GB, root)
    assert_same(plain, cached)
    assert_same(plain, cached)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path / "mine"))
    crops = made(crowd(tmp_path, ("jpg",))).cached(GB)
    assert cache_of(crops).folder.parent == tmp_path / "mine" / "crops"


def test_a_user_without_a_home_trains_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("poseglass.core.folders.user_cache_path", lambda *_, **__: Path("~/.cache/poseglass"))
    monkeypatch.delenv("POSEGLASS_CACHE", raising=False)
    with pytest.warns(RuntimeWarning, match=r"The crop cache is off: its folder cannot be used .* POSEGLASS_CACHE"):
        crops = made(crowd(tmp_path, ("jpg",))).cached(GB)
    assert crops.cache is None


def test_junk_in_the_cache_folder_is_left_alone(tmp_path: Path, root: Path) -> None:
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "readme.txt").write_text("mine")
    (root / "broken").mkdir()
    (root / "broken" / "crops.bin").write_bytes(b"x" * 100_000)
    (root / "broken" / "plan.json").write_text("{")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crops = made(crowd(tmp_path, ("jpg",))).cached(GB, root)
        assert_same(made(crowd(tmp_path, ("jpg",))), crops, epochs=(0,))
        made(crowd(tmp_path, ("jpg",)), sizes_wh=((32, 32),)).cached(1000, root)
    assert (root / "notes" / "readme.txt").read_text() == "mine"
    assert not (root / "broken").exists()  # a plan that nobody uses, over the bound


@pytest.mark.slow
def test_training_with_the_cache_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, with and without it: so it may be switched, bounded or deleted half way."""
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path / "cache"))
    write_coco(crowd(tmp_path / "images", ("jpg", "png", "jpg")), tmp_path / "train.json")
    table = {"name": "coco", "annotations": str(tmp_path / "train.json")}
    recipe = {
        "name": "tiny",
        "network": {"name": "stacked_hourglass", "num_stacks": 1, "width": 16, "depth": 2},
        "codec": {"name": "heatmap"},
        "input": {"size_wh": [32, 32]},
        "augment": [{"name": "random_affine"}, {"name": "color_jitter"}],
        "data": {"train": table},
        "train": {"epochs": 3, "batch_size": 4, "workers": 0, "sizes": [{"epoch": 2, "size_wh": [48, 48]}]},
    }
    weights = []
    for name, size in (("plain", 0.0), ("filling", 1.0), ("filled", 1.0)):
        run = prepare(Recipe.from_dict(recipe, overrides=[f"data.cache_gb={size}"]), tmp_path / name, device="cpu")
        assert (run.examples.cache is None) == (size == 0)
        run.train()
        weights.append(run.loop.network.state_dict())
    for other in weights[1:]:
        for key, value in weights[0].items():
            assert torch.equal(value, other[key]), key
