"""``poseglass predict``: finds poses in images."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from poseglass.cli.calibrations import with_calibrations
from poseglass.cli.given_boxes import GivenImage, boxes_of_images, images_without_boxes
from poseglass.cli.images import list_images, parse_box, parse_scales, read_images, read_list, unique_names
from poseglass.cli.journal import FILE_NAME, Journal, fingerprint
from poseglass.cli.lift_poses import Lifting, write_page
from poseglass.cli.poses_file import Least, noun_of
from poseglass.cli.screen import wide_console
from poseglass.cli.speed import BFLOAT16, COMPILED, CROP_SCALES, EARLY_EXIT, benched, say_compiling
from poseglass.cli.write_poses import (
    SHEET_IMAGES,
    PoseEstimator,
    characters_of,
    check_not_overwritten,
    classes_found,
    finds_boxes_3d,
    write_characters,
    write_files,
    write_poses,
    write_sheet,
)
from poseglass.core.device import choose_device
from poseglass.core.image import white_levels
from poseglass.core.levels import WhiteLevels, check_white
from poseglass.core.table import listed
from poseglass.estimators import load as loading
from poseglass.estimators.choice import Choice
from poseglass.estimators.load import DEFAULT, chips_of, find_weights, load, load_detector
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.whole_image import WholeImageEstimator
from poseglass.lifting.lifter import DEFAULT_LIFTER, Lifter, find_lifter, load_lifter
from poseglass.lifting.people import check_mappable
from poseglass.programs.fast import Precision

SHEET_UP_TO = 1000
"""Largest number of images that get a contact sheet without --sheet: it shows the first only, which say little then."""


def predict(
    images: Annotated[list[Path] | None, typer.Argument(help="Images, or folders of images.")] = None,
    list_file: Annotated[
        Path | None,
        typer.Option(
            "--list", help="Text file with one path of an image on each line, relative to the folder of the file."
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Name of weights, a .safetensors file, or a run folder: of a network that finds the keypoints in a "
            "box, or everybody in an image."
        ),
    ] = DEFAULT,
    detector: Annotated[
        str | None,
        typer.Option("--detector", help="Weights that find the boxes of people: a name, a file, or a run folder."),
    ] = None,
    detector_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score of found boxes. Default: 0.3.")
    ] = None,
    scales: Annotated[
        str | None,
        typer.Option(
            help="Scales at which the detector, or weights that find everybody, look at each image, such as 0.5,1,1.5: "
            "slower, but finds smaller and larger people. Default: 1."
        ),
    ] = None,
    chips: Annotated[
        bool | None,
        typer.Option(
            "--chips/--no-chips",
            help="Look for people in overlapping chips at several scales: for images much larger "
            "than the detector's input. Default: if the detector was trained on chips.",
        ),
    ] = None,
    reading: Annotated[
        bool,
        typer.Option(
            "--reading-order", help="Sort what is found on each page as it is read: columns, down, from right to left."
        ),
    ] = False,
    whole: Annotated[
        bool, typer.Option("--whole-image", help="Treat each image as one person filling it; look for no boxes.")
    ] = False,
    box: Annotated[
        list[str] | None,
        typer.Option("--box", help="Box of a person in a single image: x0,y0,x1,y1 in pixels. May be repeated."),
    ] = None,
    boxes_file: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            help="JSON file with boxes of people: COCO results of a detector, or COCO labels. Image ids are kept.",
        ),
    ] = None,
    min_box_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest score of boxes from --boxes; others are excluded. Default: 0.5."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder for annotated images and poses.")] = Path("poses"),
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue a run in --out with the same settings: skip the images that are done."),
    ] = False,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Lowest score of the keypoints to draw and to lift to 3D. The files contain all. Default: 0.3.",
        ),
    ] = None,
    min_probability: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Lowest probability of the keypoints to draw and to lift to 3D, instead of a score: how often such a "
            "keypoint is right. "
            "For weights that are calibrated, as the pose networks that ship are.",
        ),
    ] = None,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Average with the flipped crop. A detector does not.")
    ] = False,
    skeleton: Annotated[
        str | None,
        typer.Option(
            help="Which keypoints to return: coco17, lsp14, people19, ... Default: all that the weights predict."
        ),
    ] = None,
    lift: Annotated[
        bool,
        typer.Option(
            "--lift",
            help="Also lift each person to 3D: in poses.json, beside the annotated images, and on a page to turn them.",
        ),
    ] = False,
    lifter: Annotated[
        str | None,
        typer.Option(
            "--lifter", help=f"The lifter for --lift: a name, a file, or a run folder. Default: {DEFAULT_LIFTER}."
        ),
    ] = None,
    names: Annotated[bool, typer.Option("--names", help="Draw the names of the keypoints.")] = False,
    heatmaps: Annotated[
        bool, typer.Option("--heatmaps", help="Also write the heatmaps of the first person in each image.")
    ] = False,
    draw_images: Annotated[
        bool,
        typer.Option("--images/--no-images", help="Write annotated images, which takes longer than a small network."),
    ] = True,
    sheet: Annotated[
        bool | None,
        typer.Option(
            "--sheet/--no-sheet",
            help=f"Write sheet.jpg, the first {SHEET_IMAGES} images on one. Default: for 2 to {SHEET_UP_TO:,} images, "
            "unless --no-images.",
        ),
    ] = None,
    white: Annotated[
        float | None,
        typer.Option(
            "--white",
            help="White level of images with more than 8 bits, such as 4095 for 12 bits. Default: as declared in the "
            "files, else estimated once for all images and printed.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="For weights that find boxes in space: a text file with the calibration of the camera (P2 of KITTI), "
            "or a folder with one for each image. Default: a .txt beside each image.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda, ...")] = "auto",
    bfloat16: BFLOAT16 = False,
    compiled: COMPILED = False,
    crop_scales: CROP_SCALES = None,
    early_exit: EARLY_EXIT = None,
) -> None:
    """Find the poses of everybody in images: in given boxes, in those of a detector, or in one stage.

    Without boxes or a detector, the detector that ships finds people. For weights of anything else, an image is then
    treated as one object that fills it.
    """
    if not images and list_file is None:
        raise ValueError("No images. Give images, folders of images, or --list FILE.txt.")
    found = list_images([*(images or []), *(read_list(list_file) if list_file is not None else [])])
    paths = found.paths
    _check_options(
        paths,
        box=box,
        boxes_file=boxes_file,
        min_box_score=min_box_score,
        whole=whole,
        detector=detector,
        chips=chips,
        out=out,
    )
    if lifter is not None and not lift:
        raise ValueError("--lifter says what lifts poses to 3D, and requires --lift. Add it, or omit --lifter.")
    lifts = load_lifter(DEFAULT_LIFTER if lifter is None else lifter) if lift else None
    if white is not None:
        check_white(white)
    shown_at = None if scales is None else parse_scales(scales)
    crops_at = (1.0,) if crop_scales is None else parse_scales(crop_scales, "--crop-scales")
    if min_probability is not None and (crops_at != (1.0,) or early_exit is not None):
        raise ValueError(
            "--min-probability needs scores as they were calibrated, but with --crop-scales or --early-exit they mean "
            "something else. Omit those, or use --min-score."
        )
    console = wide_console()
    notes = list(found.notes)
    if boxes_file is not None:
        least = 0.5 if min_box_score is None else min_box_score
        given, more = boxes_of_images(boxes_file, paths, least)
        notes += more
        without = [one.path.name for one in given if one.boxes is not None and not len(one.boxes)]
        if without:
            notes.append(
                f"{boxes_file} has no box with a score of at least {least:g} for {len(without)} of {len(paths)} "
                f"images, which get no poses: {listed(without)}"
            )
    else:
        boxes = np.array([parse_box(b) for b in box], np.float32) if box else None
        given, more = images_without_boxes(paths, boxes)
        notes += more
    levels = white_levels(paths) if white is None else white
    if isinstance(levels, WhiteLevels):
        notes += levels.notes("Set another with --white.")
    has_boxes = bool(box) or boxes_file is not None
    if has_boxes and detector is not None:
        notes.append(f"--detector {detector} is not used, because boxes are given.")
    for note in notes:
        console.print(note, markup=False, highlight=False)
    run_on = choose_device(device)
    faster = (
        bfloat16
        or compiled
        or heatmaps
        or shown_at not in (None, (1.0,))
        or crops_at != (1.0,)
        or early_exit is not None
    )
    choice = benched(weights, flip_test=flip_test, device=run_on, faster=faster, console=console)
    estimator, detector_name = _open(
        weights, choice, detector=None if has_boxes else detector, find=not has_boxes and not whole, whole=whole,
        score=detector_score, scales=shown_at, chips=chips, flip_test=flip_test, skeleton=skeleton, device=run_on,
        precision="bfloat16" if bfloat16 else "float32", compiled=compiled, crop_scales=crops_at, early_exit=early_exit,
        console=console,
    )  # fmt: skip
    if reading and len(estimator.skeleton):
        raise ValueError(
            f"--reading-order sorts what is read on a page, but {weights} has keypoints of something else. Omit it."
        )
    if heatmaps and isinstance(estimator, OneStageEstimator):
        raise ValueError(
            f"--heatmaps shows the maps of one person in a box, but {weights} finds everybody in an image. Omit it."
        )
    if finds_boxes_3d(estimator):
        given, more = with_calibrations(given, calibration)
        for note in more:
            console.print(note, markup=False, highlight=False)
    elif calibration is not None:
        raise ValueError(f"--calibration is for weights that find boxes in space, and {weights} does not. Omit it.")
    if lifts is not None:
        check_mappable(lifts, estimator.skeleton, weights)
    say_compiling(compiled)
    least = _drawn(estimator, weights, min_score, min_probability)
    settings: dict[str, Any] = {
        "--weights": fingerprint(find_weights(weights)),
        "the choice of `poseglass bench`": None if choice is None else choice.in_words(),
        "--detector": None if detector_name is None else fingerprint(find_weights(detector_name)),
        "--detector-score": 0.3 if detector_score is None else detector_score,
        "--scales": shown_at,
        "--chips": chips,
        "--reading-order": reading,
        "--whole-image": whole,
        "--box": box or None,
        "--boxes": None if boxes_file is None else fingerprint(boxes_file),
        "--min-box-score": min_box_score,
        "--min-score": least.score,
        "--min-probability": least.probability,
        "--flip-test": flip_test,
        "--skeleton": skeleton,
        "--lift": None if lifts is None else fingerprint(find_lifter(lifter or DEFAULT_LIFTER)),
        "--names": names,
        "--heatmaps": heatmaps,
        "--images": draw_images,
        "--calibration": _calibration_setting(calibration),
        "--white": [list(pair) for pair in levels.whites] if isinstance(levels, WhiteLevels) else levels,
        "--bfloat16": bfloat16,
        "--crop-scales": None if crops_at == (1.0,) else crops_at,
        "--early-exit": early_exit,
    }
    journal = (Journal.resume if resume else Journal.start)(out, settings)
    _predict(
        estimator, given, journal, out, console, levels=levels, least=least, names=names, heatmaps=heatmaps,
        draw_images=draw_images, resume=resume, reading=reading, lifter=lifts,
        hint=scales is None and min_probability is None,
        sheet=draw_images and 1 < len(paths) <= SHEET_UP_TO if sheet is None else sheet,
    )  # fmt: skip


def _calibration_setting(calibration: Path | None) -> Any:
    """Return what tells calibrations of several runs apart: the content of a file, or the name of a folder."""
    if calibration is None:
        return None
    return fingerprint(calibration) if calibration.is_file() else str(calibration)


def _check_options(
    paths: tuple[Path, ...],
    *,
    box: list[str] | None,
    boxes_file: Path | None,
    min_box_score: float | None,
    whole: bool,
    detector: str | None,
    chips: bool | None,
    out: Path,
) -> None:
    """Raise where options contradict each other.

    Raises:
        ValueError: They do.
    """
    if box and boxes_file is not None:
        raise ValueError("--box and --boxes both give boxes; omit one of them.")
    if min_box_score is not None and boxes_file is None:
        raise ValueError(
            "--min-box-score requires --boxes. Add it, or omit the score. The score of found boxes is --detector-score."
        )
    for option, used in (("--box", bool(box)), ("--boxes", boxes_file is not None), ("--detector", bool(detector))):
        if whole and used:
            raise ValueError(f"--whole-image looks for no boxes, and {option} gives them; omit one of them.")
    for option, used in (("--box", bool(box)), ("--boxes", boxes_file is not None), ("--whole-image", whole)):
        if chips and used:
            raise ValueError(
                f"--chips says how to look for people, but with {option} none are looked for. Omit one of them."
            )
    if box and len(paths) > 1:
        raise ValueError(
            f"--box is for a single image, but {len(paths)} were given. Give one image, or boxes for each image with "
            "--boxes FILE.json: a list of {file_name, image_id, category_id, bbox: [x, y, width, height], score}."
        )
    for written in ("poses.json", "poses_coco.json", FILE_NAME):
        if boxes_file is not None and boxes_file.resolve() == (out / written).resolve():
            raise ValueError(f"The output would overwrite --boxes {boxes_file}. Give another folder with --out.")


def _open(
    weights: str,
    choice: Choice | None,
    *,
    detector: str | None,
    find: bool,
    whole: bool,
    score: float | None,
    scales: tuple[float, ...] | None,
    chips: bool | None,
    flip_test: bool,
    skeleton: str | None,
    device: torch.device,
    precision: Precision,
    compiled: bool,
    crop_scales: tuple[float, ...],
    early_exit: float | None,
    console: Console,
) -> tuple[PoseEstimator, str | None]:
    """Return the estimator that the options describe, and the name of its detector.

    Raises:
        ValueError: The weights and the options contradict each other.
    """
    if choice is not None:
        compiled, precision = choice.compiled, "bfloat16" if choice.precision == "bfloat16" else "float32"
    estimator = load(
        choice.file if choice is not None and choice.file else weights,
        min_box_score=score,
        flip_test=flip_test,
        skeleton=skeleton,
        device=device,
        precision=precision,
        compiled=compiled,
        crop_scales=crop_scales,
        early_exit_px=early_exit,
    )
    if chips and scales is not None:
        raise ValueError("--chips looks at each image at several scales, and so does --scales. Omit one of them.")
    if chips and isinstance(estimator, WholeImageEstimator) and estimator.finds_boxes:
        raise ValueError(f"{weights} takes whole images, so it cannot look at --chips. Give the weights themselves.")
    if isinstance(estimator, OneStageEstimator):
        if scales is not None:
            estimator = replace(estimator, scales=scales, chips=None)
        elif chips is not None:
            estimator = replace(estimator, chips=chips_of(estimator.card, chips, estimator.input.size_wh))
    if estimator.finds_boxes or isinstance(estimator, OneStageEstimator | TwoStageEstimator):
        for option, used in (("--whole-image", whole), ("--detector", detector is not None)):
            if used:
                raise ValueError(
                    f"{weights} finds everybody in an image itself. Omit {option}, or give --weights that find the "
                    f"keypoints in a box, such as {DEFAULT}."
                )
        return estimator, None
    if find and detector is None and loading.DEFAULT_DETECTOR is not None:
        if noun_of(estimator.skeleton) == "person":
            detector = loading.DEFAULT_DETECTOR
        else:
            console.print(
                f"{loading.DEFAULT_DETECTOR} finds people, and {weights} has keypoints of something else, so it is not "
                "used.", markup=False, highlight=False,
            )  # fmt: skip
    if detector is None:
        if score is not None:
            raise ValueError(
                "--detector-score is for boxes that are found, but none are. Add --detector, or omit the score. The "
                "score of given boxes is --min-box-score."
            )
        if chips:
            raise ValueError(
                f"--chips is for weights that look at whole images, but {weights} finds the keypoints in a box, and no "
                "boxes are looked for. Add --detector, or omit --chips."
            )
        if scales is not None:
            raise ValueError(
                f"--scales is for weights that look at whole images, but {weights} finds the keypoints in a box, and "
                "no boxes are looked for. Add --detector, or omit the scales."
            )
        return estimator, None
    finds = load_detector(detector, min_box_score=score, scales=scales, chips=chips, device=device)
    if finds.finds_boxes_3d:
        raise ValueError(
            f"--detector {detector} finds boxes in space, but {weights} takes boxes in the image. Give {detector} as "
            "--weights, with --calibration, or name another detector."
        )
    return TwoStageEstimator(finds, estimator), detector


def _shown_whole(estimator: PoseEstimator) -> bool:
    """Return whether what finds people sees each image whole, and could look at chips."""
    finder = estimator.detector if isinstance(estimator, TwoStageEstimator) else estimator
    return isinstance(finder, OneStageEstimator) and finder.chips is None


def _takes_scales(estimator: PoseEstimator) -> bool:
    """Return whether what finds instances sees each image whole, and could see it at 0.5, 1 and 1.5."""
    finder = estimator.detector if isinstance(estimator, TwoStageEstimator) else estimator
    if not isinstance(finder, OneStageEstimator) or finder.finds_boxes_3d or finder.chips is not None:
        return False
    try:
        replace(finder, scales=(0.5, 1.0, 1.5))
    except ValueError:
        return False
    return True


def _drawn(estimator: PoseEstimator, weights: str, score: float | None, probability: float | None) -> Least:
    """Return which keypoints are drawn.

    Raises:
        ValueError: Both are given, or a probability for weights that are not calibrated.
    """
    if probability is None:
        return Least() if score is None else Least(score)
    if score is not None:
        raise ValueError("--min-score and --min-probability both say which keypoints are drawn. Omit one of them.")
    poses = estimator.poses if isinstance(estimator, TwoStageEstimator) else estimator
    if isinstance(poses, OneStageEstimator) and (poses.chips is not None or poses.scales != (1.0,)):
        raise ValueError(
            "--min-probability needs scores as they were calibrated, at one scale, but --scales or --chips join "
            "several. Use --min-score."
        )
    if not poses.calibrated:
        raise ValueError(
            f"--min-probability needs weights whose scores are calibrated, and {weights} are not. Use --min-score, or "
            "a pose network that ships (hg2-light-lspet, people-pose, people-quick), or calibrate them: "
            "poseglass calibrate WEIGHTS LABELS --out FILE."
        )
    return Least(0.0, probability)


def _predict(
    estimator: PoseEstimator,
    given: list[GivenImage],
    journal: Journal,
    out: Path,
    console: Console,
    *,
    levels: float | WhiteLevels,
    least: Least,
    names: bool,
    heatmaps: bool,
    draw_images: bool,
    resume: bool,
    sheet: bool,
    reading: bool,
    lifter: Lifter | None,
    hint: bool,
) -> None:
    """Find the poses in the images that are not done, write the files of all, and name --scales if ``hint``.

    Raises:
        ValueError: No image could be processed, or an output would overwrite an image.
        typer.Exit: With status 1 if some images could not be processed.
    """
    paths = [one.path for one in given]
    outputs = unique_names(paths)
    folder = out.resolve()
    inside = [path for path in paths if path.parent.resolve() == folder]  # usually none
    if inside:
        written = [f"{name}.png" for name in outputs if draw_images] + ["sheet.jpg"] * sheet
        written += [f"{name}-heatmaps.png" for name in outputs if heatmaps]
        written += [f"{name}-3d.png" for name in outputs if draw_images and lifter is not None]
        for path in inside:
            for target in {path.name}.intersection(written):
                check_not_overwritten(out / target, str(path))
    done = {path for path, name in zip(paths, outputs, strict=True) if journal.has(path, name)}
    if resume:
        _say_resumed(journal, paths, outputs, done, console)
    items = read_images(given, levels, done=done)
    try:
        failed = write_poses(
            estimator, items, out, console, journal=journal, total=len(paths), already=len(done), least=least,
            names=names, heatmaps=heatmaps, images=draw_images, reading=reading,
            lift=None if lifter is None else Lifting(lifter, least),
        )  # fmt: skip
    except BaseException:  # Ctrl-C too
        journal.close(finished=False)
        kept = sum(journal.has(path, name) for path, name in zip(paths, outputs, strict=True))
        if kept:
            console.print(
                f"Interrupted with {kept:,} of {len(paths):,} images done, which are kept in {journal.path}. The same "
                "command with --resume continues, and writes poses.json at the end.", markup=False, highlight=False,
            )  # fmt: skip
        raise
    order = [
        (one.path, one.image_id, str(one.path))
        for one, name in zip(given, outputs, strict=True)
        if journal.has(one.path, name)
    ]
    if not order:
        raise ValueError(" ".join(failed) + (f" Processed 0 of {len(paths)} images." if len(paths) > 1 else ""))
    empty, people = write_files(estimator.skeleton, journal, order, out)
    classes = classes_found(estimator)
    if characters_of(classes):
        notes = write_characters(classes, journal, order, out)
        console.print(
            f"written to {out}: submission.csv, code points with the middles of their boxes",
            markup=False, highlight=False,
        )  # fmt: skip
        for note in notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
    said = ["annotated images"] * draw_images + ["poses.json (COCO results)"]
    said += ["poses_coco.json (with the keypoints' names)"] + ["heatmaps"] * heatmaps
    if sheet:
        shown = write_sheet(
            estimator.skeleton, journal, [path for path, _, _ in order], out, white=levels, least=least,
            projections={one.path: one.projection for one in given if one.projection is not None},
        )  # fmt: skip
        said += [f"sheet.jpg (the first {shown} of {len(order):,} images)"] * (shown > 0)
    if lifter is not None:
        page = write_page(
            estimator.skeleton, lifter, journal, [path for path, _, _ in order], out, white=levels, least=least,
        )  # fmt: skip
        said += [f"poses_3d.html (3D poses to turn, of {page.in_words()})"] * (page.shown > 0)
        said += ["3D poses beside the images (...-3d.png)"] * (draw_images and page.lifted > 0)
        if page.skipped:
            console.print(
                "Not in poses_3d.html, because they are too large for it or cannot be read again: "
                f"{listed(page.skipped)}.", markup=False, highlight=False,
            )  # fmt: skip
    journal.close(finished=True, keep=len(paths) > 1)
    if empty and given[0].boxes is None:
        console.print(
            f"Nobody was found in {len(empty):,} of {len(order):,} images: {listed(empty)}."
            + (" For people who are small in a large image, try --chips." if _shown_whole(estimator) else ""),
            markup=False, highlight=False,
        )  # fmt: skip
    if hint and given[0].boxes is None and _takes_scales(estimator):
        console.print(
            "If some are missing: --scales 0.5,1,1.5 looks at each image at three sizes and may find them, in 3.5 "
            "times the time of finding.", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    console.print(f"written to {out}: {', '.join(said)}", markup=False)
    poses = estimator.poses if isinstance(estimator, TwoStageEstimator) else estimator
    if isinstance(poses, TopDownEstimator) and poses.early_exit is not None:
        console.print(poses.early_exit.in_words(), markup=False, highlight=False)
    if failed:
        errors = Console(stderr=True)
        for message in failed:
            errors.print(message, markup=False, highlight=False, soft_wrap=True)
    if failed or len(paths) > 1:
        console.print(
            f"Processed {len(order):,} of {len(paths):,} images with {people:,} poses"
            + (f"; {len(failed):,} could not be processed, for the reasons above." if failed else "."),
            markup=False, highlight=False,
        )  # fmt: skip
    if failed:
        raise typer.Exit(1)


def _say_resumed(journal: Journal, paths: list[Path], outputs: list[str], done: set[Path], console: Console) -> None:
    """Print how many images are skipped, and which of the journal's are not used."""
    if not len(journal):
        console.print(
            f"--resume: {journal.path.parent} holds no images that are done; all are processed.", markup=False
        )
        return
    changed = [path.name for path, name in zip(paths, outputs, strict=True) if journal.has_other(path, name)]
    others = len(journal) - len(done) - len(changed)
    console.print(
        f"--resume: skipped {len(done):,} of {len(paths):,} images, which are done."
        + (f" Changed since, and processed again: {listed(changed)}." if changed else "")
        + (f" {others:,} images that were done are not among those given, and left out." if others else ""),
        markup=False, highlight=False,
    )  # fmt: skip
