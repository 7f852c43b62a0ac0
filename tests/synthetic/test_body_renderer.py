import numpy as np
import pytest

from poseglass.core.camera import Camera
from poseglass.synthetic.body_figure import SKIN, Figure, sample_figure, sample_outfit
from poseglass.synthetic.body_model import KEYPOINTS, build_body
from poseglass.synthetic.body_pose import BOUNDS, SIDED, BodyPose, rotation, sample_pose
from poseglass.synthetic.body_renderer import Light, Occluder, body_window, cast, finer, occlusion, shade
from poseglass.synthetic.texture import paint


def standing(yaw: float = 0.0):
    zero = {n: 0.0 for n in BOUNDS}
    limb = {n: 0.0 for n in SIDED}
    pose = BodyPose(
        "stand", zero, limb | {"shoulder_elevation": 30.0}, limb | {"shoulder_elevation": 30.0}, rotation("y", yaw), 0.0
    )
    figure = Figure(1750.0)
    return build_body(figure, sample_outfit(np.random.default_rng(3), figure), pose)


CAMERA = Camera(380.0, (79.5, 99.5), np.diag([1.0, -1.0, -1.0]), np.array([0.0, 900.0, 4000.0]))
SIZE = (160, 200)


def hidden(body, bodies=None, occluders=()):
    bodies = bodies or [body]
    flags = occlusion(body, CAMERA, cast(bodies, CAMERA, SIZE, occluders), bodies.index(body))
    return {name: bool(flag) for name, flag in zip(KEYPOINTS, flags, strict=True)}


def test_rays_meet_every_quadric_where_its_surface_is():
    """Points on the surfaces project into the silhouette, none lies in front of the depth buffer, the box is tight."""
    rng = np.random.default_rng(0)
    for seed in range(4):
        figure = sample_figure(rng)
        body = build_body(figure, sample_outfit(rng, figure), sample_pose(rng, {"vault": 1, "jump": 1}))
        body = body.moved(np.array([0.0, 900.0 - body.points_mm[:, 1].mean(), 0.0]))
        surfaces = cast([body], CAMERA, SIZE)
        low, high = np.full(2, np.inf), np.full(2, -np.inf)
        for i in range(len(body.taper)):
            q = rng.standard_normal((400, 3))
            q /= np.linalg.norm(q, axis=1, keepdims=True)
            if not np.isnan(body.taper[i]):
                y = rng.uniform(0, 1, 400)
                ring = q[:, ::2] / np.linalg.norm(q[:, ::2], axis=1, keepdims=True) * (1 + body.taper[i] * y)[:, None]
                q = np.stack([ring[:, 0], y, ring[:, 1]], 1)
            points = np.linalg.solve(body.to_local[i], (q - body.offset[i]).T).T
            # An open cone shows its inside through its ends, and the inside is not drawn.
            taper = body.taper[i]
            middle = q[:, 1] if np.isnan(taper) else -taper * (1 + taper * q[:, 1])
            outward = np.stack([q[:, 0], middle, q[:, 2]], 1) @ body.to_local[i]
            eye = -np.asarray(CAMERA.rotation).T @ CAMERA.translation_mm
            points = points[((points - eye) * outward).sum(1) < 0]
            xy, depth = CAMERA.project(points), CAMERA.to_camera(points)[:, 2]
            low, high = np.minimum(low, xy.min(0)), np.maximum(high, xy.max(0))
            column, row = np.rint(xy).astype(int).T
            inside = (column >= 1) & (row >= 1) & (column < SIZE[0] - 1) & (row < SIZE[1] - 1)
            column, row, depth = column[inside], row[inside], depth[inside]
            # A pixel's centre is up to half a pixel from the point: take the nearest surface around it.
            around = [surfaces.depth_mm[row + a, column + b] for a in (-1, 0, 1) for b in (-1, 0, 1)]
            # Rims may fall between pixels' centres.
            behind = np.min(around, axis=0) > depth + 1.0
            assert behind.sum() <= 0.04 * len(behind), (seed, i)
        box = body_window(surfaces.quadrics[0], CAMERA)
        np.testing.assert_allclose(box, [*low, *high], atol=2.0)
        assert (box[:2] <= low + 1e-6).all()
        assert (box[2:] >= high - 1e-6).all()


def test_front_is_seen_from_the_front_and_left_is_on_the_right_of_the_image():
    body = standing()
    xy = dict(zip(KEYPOINTS, CAMERA.project(body.points_mm), strict=True))
    assert xy["left_shoulder"][0] > xy["right_shoulder"][0]
    seen = hidden(body)
    assert not any(seen.values()), seen


def test_back_hides_the_face_but_no_joint():
    seen = hidden(standing(180.0))
    assert seen["nose"]
    assert seen["left_eye"]
    assert seen["right_eye"]
    for name in ("left_shoulder", "right_hip", "left_knee", "right_wrist", "neck", "head_top"):
        assert not seen[name], name


def test_side_hides_the_far_limbs():
    seen = hidden(standing(90.0))  # the left side turned away from the camera
    near, far = ("right", "left") if not hidden(standing(90.0))["right_ear"] else ("left", "right")
    depth = CAMERA.to_camera(standing(90.0).points_mm)[:, 2]
    assert depth[KEYPOINTS.index(f"{near}_ear")] < depth[KEYPOINTS.index(f"{far}_ear")]
    for joint in ("ear", "shoulder", "hip"):
        assert seen[f"{far}_{joint}"], joint
        assert not seen[f"{near}_{joint}"], joint


def test_people_and_things_in_front_hide_and_those_behind_do_not():
    body = standing()
    front, behind = body.moved(np.array([0.0, 0.0, 800.0])), body.moved(np.array([0.0, 0.0, -800.0]))
    assert hidden(body, [front, body])["left_hip"]
    assert not hidden(body, [behind, body])["left_hip"]
    whole = np.array([[-10.0, -10.0], [200.0, -10.0], [200.0, 210.0], [-10.0, 210.0]])
    gray = np.full(3, 0.5)
    assert all(hidden(body, occluders=[Occluder(whole, 3000.0, gray)]).values())
    assert hidden(body, occluders=[Occluder(whole, 5000.0, gray)]) == hidden(body)
    lower = np.array([[-10.0, 100.0], [200.0, 100.0], [200.0, 210.0], [-10.0, 210.0]])
    half = hidden(body, occluders=[Occluder(lower, 3000.0, gray)])
    assert half["left_knee"]
    assert not half["left_shoulder"]


def test_person_buffer_names_the_nearer_body():
    body = standing()
    front = body.moved(np.array([0.0, 0.0, 800.0]))
    surfaces = cast([body, front], CAMERA, SIZE)
    column, row = np.rint(CAMERA.project(front.points_mm[KEYPOINTS.index("pelvis")])).astype(int)
    assert surfaces.person()[row, column] == 1
    assert surfaces.visible().sum() == (surfaces.person() >= 0).sum()


def test_finer_camera_keeps_pixel_centres():
    point = np.array([123.0, 700.0, 50.0])
    once, twice = CAMERA.project(point), finer(CAMERA, 2.0).project(point)
    np.testing.assert_allclose((once + 0.5) * 2 - 0.5, twice)


def test_lit_side_is_brighter():
    body = standing()
    surfaces = cast([body], CAMERA, SIZE)
    textures = [np.full_like(paint(np.random.default_rng(0), body.outfit), 0.5)]
    images = [
        shade([body], CAMERA, surfaces, textures, Light(np.array([x, 0.0, 0.0]), np.ones(3), np.full(3, 0.2), 0.0))
        for x in (1.0, -1.0)
    ]
    # The world's x is the image's right: the lamp there lights the right half of the body.
    left, right = (surfaces.part >= 0) & (np.arange(SIZE[0]) < 79), (surfaces.part >= 0) & (np.arange(SIZE[0]) > 80)
    assert images[0][right].mean() > images[0][left].mean() + 0.03
    assert images[1][right].mean() < images[1][left].mean() - 0.03
    assert images[0][surfaces.part < 0].max() == 0


def test_marker_colour_is_found_where_the_keypoint_is():
    """Skin painted red and all else blue: the bare hand's pixel at the wrist is red."""
    body = standing()
    surfaces = cast([body], CAMERA, SIZE)
    colors = np.zeros_like(paint(np.random.default_rng(0), body.outfit))
    colors[..., 2] = 1.0
    colors[SKIN] = (1.0, 0.0, 0.0)
    flat = Light(np.array([0.0, 1.0, 0.0]), np.zeros(3), np.ones(3), 0.0)
    image = shade([body], CAMERA, surfaces, [colors], flat)
    if body.outfit.gloves:
        pytest.fail("choose a seed without gloves")
    column, row = np.rint(CAMERA.project(body.points_mm[KEYPOINTS.index("left_wrist")]) + np.array([0, 2])).astype(int)
    assert image[row, column, 0] > 0.3
    assert image[row, column, 2] == 0
