"""The skeletons of the common datasets. Left and right are always the person's own."""

from poseglass.core.skeleton import Skeleton

COCO17 = Skeleton(
    "coco17",
    (
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
        "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
        "left_knee", "right_knee", "left_ankle", "right_ankle",
    ),
    (
        ("left_ankle", "left_knee"), ("left_knee", "left_hip"), ("right_ankle", "right_knee"),
        ("right_knee", "right_hip"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_elbow"),
        ("right_shoulder", "right_elbow"), ("left_elbow", "left_wrist"), ("right_elbow", "right_wrist"),
        ("left_eye", "right_eye"), ("nose", "left_eye"), ("nose", "right_eye"), ("left_eye", "left_ear"),
        ("right_eye", "right_ear"),
    ),
    (
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
        0.087, 0.087, 0.089, 0.089,
    ),
)  # fmt: skip
"""COCO 2017 keypoints. Sigmas: the dataset's own, pycocotools ``Params``."""

MPII16 = Skeleton(
    "mpii16",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    (
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("right_hip", "pelvis"),
        ("left_hip", "pelvis"), ("left_knee", "left_hip"), ("left_ankle", "left_knee"), ("pelvis", "thorax"),
        ("thorax", "neck"), ("neck", "head_top"), ("thorax", "right_shoulder"),
        ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"), ("thorax", "left_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
    ),
)  # fmt: skip
"""MPII Human Pose. Its "upper neck" is called neck here, as in LSP."""

LSP14 = Skeleton(
    "lsp14",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
        "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    (
        ("right_ankle", "right_knee"), ("right_knee", "right_hip"), ("left_ankle", "left_knee"),
        ("left_knee", "left_hip"), ("right_hip", "left_hip"), ("right_wrist", "right_elbow"),
        ("right_elbow", "right_shoulder"), ("left_wrist", "left_elbow"), ("left_elbow", "left_shoulder"),
        ("right_shoulder", "neck"), ("left_shoulder", "neck"), ("neck", "head_top"),
        ("right_shoulder", "right_hip"), ("left_shoulder", "left_hip"),
    ),
    (
        0.089, 0.087, 0.107, 0.107, 0.087, 0.089, 0.062, 0.072, 0.079, 0.079, 0.072, 0.062, 0.079, 0.079,
    ),
)  # fmt: skip
"""Leeds Sports Pose and its extended set. Sigmas: COCO's; for neck and head top, CrowdPose's for neck and head."""

FLIC11 = Skeleton(
    "flic11",
    (
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
        "left_hip", "right_hip", "left_eye", "right_eye", "nose",
    ),
    (
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"), ("left_shoulder", "right_shoulder"), ("left_shoulder", "left_hip"),
        ("right_shoulder", "right_hip"), ("left_hip", "right_hip"), ("left_eye", "nose"), ("right_eye", "nose"),
    ),
)  # fmt: skip
"""Frames Labelled In Cinema, the eleven joints that the hourglass ports use."""

PEOPLE19 = Skeleton(
    "people19",
    (*COCO17.keypoints, "neck", "head_top"),
    (*COCO17.bones, ("left_shoulder", "neck"), ("right_shoulder", "neck"), ("neck", "head_top")),
    (*COCO17.sigmas, 0.079, 0.079),
)
"""COCO's 17 keypoints, then neck and head top as in LSP. ``COCO17`` and ``LSP14`` are parts of it. Sigmas: as there."""

H36M17 = Skeleton(
    "h36m17",
    (
        "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine",
        "thorax", "neck", "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder",
        "right_elbow", "right_wrist",
    ),
    (
        ("pelvis", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"),
        ("pelvis", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("pelvis", "spine"),
        ("spine", "thorax"), ("thorax", "neck"), ("neck", "head_top"), ("thorax", "left_shoulder"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("thorax", "right_shoulder"),
        ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ),
)  # fmt: skip
"""The 17 of Human3.6M's 32 joints that 3D poses are evaluated on, in their order. Motion capture is mapped to them.

Human3.6M's "neck/nose" is called neck here: a point between the thorax (the base of the neck) and the top of the head.
"""

MPI3DHP17 = Skeleton(
    "mpi3dhp17",
    (
        "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
        "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "pelvis", "spine", "head",
    ),
    (
        ("head_top", "head"), ("head", "neck"), ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"), ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"), ("neck", "spine"), ("spine", "pelvis"), ("pelvis", "right_hip"),
        ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("pelvis", "left_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"),
    ),
)  # fmt: skip
"""MPI-INF-3DHP's 17 joints of the test set. Its neck is the base of the neck, which ``H36M17`` calls thorax."""

BOXES = Skeleton("boxes", ())
"""Of what has a box and a class, and no keypoints."""

ANY_CHARACTER = "character"
"""The class of all characters where they are only to be found, not told apart."""

SKELETONS: dict[str, Skeleton] = {s.name: s for s in (COCO17, MPII16, LSP14, FLIC11, PEOPLE19)}

SKELETONS_3D: dict[str, Skeleton] = {s.name: s for s in (H36M17, MPI3DHP17)}
"""Skeletons of poses in three dimensions. No image labels have them, so no reader of labels takes a file for one."""
