"""CenterNet: an object is a peak of its class's centre heatmap; its size, offset and keypoints are read at the peak.

Zhou, Wang, Krähenbühl, "Objects as Points", 2019, https://arxiv.org/abs/1904.07850. Radius, snapping and thresholds are
those of xingyizhou/CenterNet (MIT), read for facts.

How this differs from the public code: boxes may be aligned by pixel centres (``alignment="center"``); crowds, and the
keypoints that nobody labelled of a person, are left out of the loss instead of being trained as background, but a crowd
of a class only on the map of that class, as with the public code's regions to ignore in KITTI; people without any
labelled keypoint are detected like others (``unposed="ignore"`` restores the public rule); the flip test averages
logits, not probabilities; keypoints have scores; and, if asked for (``visibility``), the network says of every keypoint
whether it is visible, occluded or absent, which the paper's does not. Boxes in space are in ``centernet_3d``: depths at
one focal length (``focal_px``) and projected middles (``middles_3d``) are ours.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from poseglass.codecs.centernet_3d import decoded_3d, flipped_3d, targets_3d
from poseglass.codecs.heatmap import Alignment, flip_heatmaps, to_heatmap, to_input
from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, check_targets

_KEYPOINT_PEAK = 0.1
"""Lowest score of a keypoint peak that a regressed keypoint may snap to (public code)."""

_SNAP_SHARE = 0.3
"""Farthest that a keypoint snaps, as a share of the longer side of its box (public code)."""

_IGNORED = 0.9999
"""Target of a pixel that is neither centre nor background: its focal loss is practically 0 (public code)."""

_ABSENT = 2
"""Place of the state "absent" among visible, occluded and absent, the order of the output "visibility"."""

_LARGEST_LOGIT = 1e4
"""Logits of visibility are clipped to it, so that infinite ones give probabilities too."""


@dataclass(frozen=True, slots=True)
class CenterNetCodec:
    """Encodes any number of boxes with keypoints as dense maps; decodes the best peaks, without suppression by overlap.

    Args:
        stride: View pixels per map pixel.
        poses: Whether instances have keypoints, besides boxes.
        most: Largest number of instances decoded per view.
        radius: How the Gaussian's radius follows from a box: "public", the formula that the published networks were
            trained with, or "exact", the formula that gives the stated overlap; it is about a third of the other.
        min_overlap: Overlap that a box of the same size keeps with the true one when its centre is off by the radius.
        alignment: How view and map pixels correspond; "corner" for the published weights. See ``HeatmapCodec``.
        unposed: People without a labelled keypoint, if ``poses``: "detect" trains their box, "ignore" neither trains
            nor forbids their centre.
        visibility: Whether the network also tells visible, occluded and absent keypoints apart, in an output
            "visibility" that is read at the centre. What labels say: a labelled keypoint in the view is visible or
            occluded as marked; a labelled one that the view cuts off is absent. Without marks of occlusion
            (``Targets.occluded`` is None) nothing is learnt, because a network that is shown absent keypoints only
            calls all of them absent. A data set that marks nobody as occluded although some are must not be used.
        unlabelled: Keypoints without a label, of a person with labelled ones, if ``visibility``: "unknown" leaves them
            out of the loss; "absent" trains them as absent. COCO's v = 0 means "not labelled", which its annotators
            used for keypoints outside the image and for those that they could not place, so "unknown" is right unless
            a data set labels every keypoint that is in its images. People without any labelled keypoint are always
            unknown. With "absent", every data set must have all keypoints of the skeleton.
        features: For thousands of classes. 0 has a map of centres for each class. A number above 0 has one map of the
            centres of all classes, and this many channels of features, of which those at a centre give its class by a
            linear classifier: memory does not grow with the number of classes. The score of an instance is then that
            of its centre times the probability of its class. The network's head needs the same number.
        boxes_3d: Whether instances have boxes in space: the outputs "depth", "dimensions" and "rotation", see
            ``codecs.centernet_3d``. The network's head needs the same.
        focal_px: For cameras of several focal lengths: the network predicts each depth as if the view had this focal
            length, pixels, since in a view of twice the focal length an object looks as it does at half its depth. A
            view that augmentation scaled is one of another focal length, so that depths are learnt from it too. 0
            predicts depths as they are, which is the published form: it suits one camera, and neither depth nor
            dimensions are learnt from scaled views.
        middles_3d: Predict also where the middle of the box in space is projected to (the output "middle_3d"), which is
            not the centre of the box in the image, least of all where the view cuts the object off. The published form
            takes that centre.
        heading_bins: In how many bins the heading is predicted; an even number, 2 in the published form. The terms of
            the loss are summed over the bins. The network's head needs the same number.

    Raises:
        ValueError: A number or option out of range, or ``visibility`` without ``poses``, or ``unlabelled`` without
            ``visibility``, or ``focal_px``, ``middles_3d`` or ``heading_bins`` without ``boxes_3d``.
    """

    stride: int = 4
    poses: bool = True
    most: int = 100
    radius: Literal["public", "exact"] = "public"
    min_overlap: float = 0.7
    alignment: Alignment = "center"
    unposed: Literal["detect", "ignore"] = "detect"
    visibility: bool = False
    unlabelled: Literal["unknown", "absent"] = "unknown"
    features: int = 0
    boxes_3d: bool = False
    focal_px: float = 0.0
    middles_3d: bool = False
    heading_bins: int = 2

    def __post_init__(self) -> None:
        if self.stride < 1 or self.most < 1 or not 0 < self.min_overlap < 1:
            raise ValueError(
                "CenterNetCodec needs stride and most of at least 1 and min_overlap between 0 and 1, got "
                f"stride={self.stride}, most={self.most}, min_overlap={self.min_overlap}."
            )
        if self.features < 0:
            raise ValueError(f"CenterNetCodec.features must be 0 or more, got {self.features}.")
        for name, known in (
            ("radius", ("public", "exact")), ("alignment", ("center", "corner")), ("unposed", ("detect", "ignore")),
            ("unlabelled", ("unknown", "absent")),
        ):  # fmt: skip
            if getattr(self, name) not in known:
                raise ValueError(
                    f"CenterNetCodec.{name} must be {' or '.join(map(repr, known))}, got {getattr(self, name)!r}."
                )
        if not 0 <= self.focal_px < float("inf"):
            raise ValueError(f"CenterNetCodec.focal_px must be 0 or a focal length in pixels, got {self.focal_px}.")
        if self.heading_bins < 2 or self.heading_bins % 2:
            raise ValueError(
                "CenterNetCodec.heading_bins must be an even number from 2 on, so that a mirrored bin is a bin, got "
                f"{self.heading_bins}."
            )
        if (self.focal_px or self.middles_3d or self.heading_bins != 2) and not self.boxes_3d:
            named = "focal_px" if self.focal_px else "middles_3d" if self.middles_3d else "heading_bins"
            raise ValueError(
                f"CenterNetCodec.{named} is of boxes in space, but boxes_3d is False. Set boxes_3d to True, or leave "
                f"{named} out."
            )
        if self.visibility and not self.poses:
            raise ValueError(
                "CenterNetCodec.visibility is of keypoints, but poses is False, so there are none. Set poses to True, "
                "or visibility to False."
            )
        if self.unlabelled != "unknown" and not self.visibility:
            raise ValueError(
                f"CenterNetCodec.unlabelled is {self.unlabelled!r}, which says what is learnt about visibility, but "
                "visibility is False. Set visibility to True, or leave unlabelled out."
            )

    @property
    def spec(self) -> CodecSpec:
        """What the codec decodes and encodes."""
        outputs = {
            "center": Output((1 if self.features else "C", "h", "w"), "sigmoid"),
            "size": Output((2, "h", "w")),
            "center_offset": Output((2, "h", "w")),
        }
        extra = ("center_weight", "index")
        if self.features:
            outputs |= {
                "features": Output((self.features, "h", "w")),
                "classifier": Output(("C", self.features + 1)),
            }
            extra += ("label",)
        if self.poses:
            outputs |= {
                "keypoints": Output(("K", 2, "h", "w")),
                "heatmap": Output(("K", "h", "w"), "sigmoid"),
                "heatmap_offset": Output((2, "h", "w")),
            }
            extra += ("heatmap_weight", "keypoint_index", "keypoint_weight")
        if self.visibility:
            outputs["visibility"] = Output(("K", 3, "h", "w"), "softmax")
            extra += ("visibility_weight",)
        if self.boxes_3d:
            outputs |= {
                "depth": Output((1, "h", "w")),
                "dimensions": Output((3, "h", "w")),
                "rotation": Output((4 * self.heading_bins, "h", "w")),
            }
            extra += ("depth_weight", "rotation_weight")
        if self.middles_3d:
            outputs["middle_3d"] = Output((2, "h", "w"))
        return CodecSpec(
            outputs, self.stride, self.alignment, loss_keys=extra, instances=self.most, keypoints=self.poses
        )

    def encode(self, targets: Targets, size_wh: tuple[int, int], *, num_classes: int | None = None) -> Prediction:
        """Draw the maps of views of ``size_wh`` on the targets' device.

        Args:
            targets: B views with up to N instances each. Boxes are clipped to the view; those with nothing left in it
                are skipped. If several centres share a pixel, the last instance keeps it. A crowd with a label below 0
                is one of any class.
            size_wh: Size of the views.
            num_classes: Number of classes, C; None takes the largest label and 1.

        Returns:
            The keys of ``spec.outputs``, as a perfect network would give them but with heatmaps as values in [0, 1]
            instead of logits, and without "features" and "classifier", which no label gives; and for the loss:
            ``"weight"`` ``(B, N)``, instances that count; ``"index"`` ``(B, N)``, their centre's pixel in row-major
            order; ``"center_weight"`` ``(B, 1, h, w)``, 0 in crowds of any class (label below 0) outside the Gaussians
            of instances. In a crowd of one class, outside the Gaussians of its instances, ``"center"`` is 0.9999 on the
            map of that class, where the loss is practically 0, whatever is predicted. With poses,
            ``"keypoint_weight"`` and ``"keypoint_index"`` ``(B, N, K)``, the keypoints inside the map, and
            ``"heatmap_weight"`` ``(B, K, h, w)``, 0 around people where the keypoint is not labelled, and in crowds,
            outside the Gaussians of keypoints; with ``features``, ``"label"`` ``(B, N)``.
            With ``visibility``, ``"visibility"`` ``(B, K, 3, h, w)`` has at a centre 1 for the state that the labels
            give (visible, occluded, absent) and all 0 elsewhere, and where it is unknown;
            ``"visibility_weight"`` ``(B, N, K)`` is 0 where it is unknown.
            With ``boxes_3d``, ``"depth_weight"`` ``(B, N)`` is 0 where depth and dimensions are not learnt, and
            ``"rotation_weight"`` ``(B, N)`` where the box in space is unknown.

        Raises:
            TypeError: A whole batch was passed instead of its targets.
            ValueError: A label is not below ``num_classes``; or ``boxes_3d``, and the labels have none.
        """
        check_targets(targets)
        device, (batch, count) = targets.xy.device, targets.valid.shape
        width, height = size_wh[0] // self.stride, size_wh[1] // self.stride
        label = torch.where(targets.valid, targets.label, 0).clamp_min(0)
        classes = count_classes(targets, num_classes)
        corners = to_heatmap(
            targets.box_xyxy.float().nan_to_num(0.0).unflatten(-1, (2, 2)), self.stride, self.alignment
        )
        limit = torch.tensor([width, height], device=device, dtype=torch.float32) - 0.5
        low, high = (torch.minimum(end.clamp_min(-0.5), limit) for end in corners.unbind(-2))
        size = high - low
        there = targets.valid & (size > 0).all(-1)
        crowd, instance = there & targets.crowd, there & ~targets.crowd
        detected = instance
        if self.poses and self.unposed == "ignore":
            detected = instance & (targets.known > 0).any(-1)
        middle = (low + high) / 2
        pixel = torch.minimum(middle.floor().clamp_min(0.0), limit.floor())
        radius = gaussian_radius(size.ceil(), self.min_overlap, self.radius).clamp_min(0.0).floor()
        rows = torch.arange(batch, device=device)

        center = torch.zeros(batch, 1 if self.features else classes, height, width, device=device)
        map_of = torch.zeros_like(label) if self.features else label
        for n in range(count):
            drawn = _disc_gaussians(pixel[:, n], radius[:, n], (width, height))
            peak = torch.where(detected[:, n], 1.0, _IGNORED)[:, None, None]
            drawn = torch.where(instance[:, n, None, None], drawn.clamp(max=peak), 0.0)
            center[rows, map_of[:, n]] = torch.maximum(center[rows, map_of[:, n]], drawn)
        index = (pixel[..., 1] * width + pixel[..., 0]).long()
        taught = (center > 0).any(1, keepdim=True)
        of_any, of_class = crowd & (targets.label < 0), crowd & (targets.label >= 0)
        for n in _columns(of_class):
            own = center[rows, map_of[:, n]]
            left_out = _inside(low[:, n], high[:, n], (width, height)) & of_class[:, n, None, None] & (own == 0)
            center[rows, map_of[:, n]] = torch.where(left_out, _IGNORED, own)
        found = {
            "center": center, "index": index, "weight": detected.float(),
            "center_weight": torch.where(taught, 1.0, _without(torch.ones_like(center[:, :1]), low, high, of_any)),
            "size": _placed(size, index, detected, (width, height)),
            "center_offset": _placed(middle - pixel, index, detected, (width, height)),
        }  # fmt: skip
        if self.features:
            found["label"] = label
        if self.poses:
            found |= self._encode_keypoints(targets, instance, crowd, low, high, pixel, radius, index, (width, height))
        if self.visibility:
            found |= self._encode_visibility(targets, instance, index, size_wh, (width, height))
        if self.boxes_3d:
            found |= self._encode_3d(targets, detected, pixel, index, (width, height))
        return found

    def _encode_keypoints(
        self, targets: Targets, instance: Tensor, crowd: Tensor, low: Tensor, high: Tensor, pixel: Tensor,
        radius: Tensor, index: Tensor, map_wh: tuple[int, int],
    ) -> Prediction:  # fmt: skip
        """Return the maps and weights of the keypoints."""
        (width, height), (batch, count, num_keypoints) = map_wh, targets.known.shape
        xy = to_heatmap(targets.xy.float(), self.stride, self.alignment)
        limit = torch.tensor([width, height], device=xy.device) - 0.5
        known = (targets.known > 0) & instance[..., None]
        known = known & ((xy >= -0.5) & (xy < limit)).all(-1)
        xy = torch.where(known[..., None], xy, 0.0)
        at = torch.minimum(xy.floor().clamp_min(0.0), limit.floor())
        heatmap = torch.zeros(batch, num_keypoints, height, width, device=xy.device)
        weight = torch.ones_like(heatmap)
        unlabelled = instance[..., None] & (targets.known <= 0)
        for n in range(count):
            drawn = _disc_gaussians(at[:, n], radius[:, n, None].expand(-1, num_keypoints), map_wh)
            heatmap = torch.maximum(heatmap, torch.where(known[:, n, :, None, None], drawn, 0.0))
            inside = _inside(low[:, n], high[:, n], map_wh)[:, None]
            weight = torch.where(inside & (unlabelled[:, n] | crowd[:, n, None])[..., None, None], 0.0, weight)
        keypoint_index = (at[..., 1] * width + at[..., 0]).long()
        vectors = torch.where(known[..., None], xy - pixel[:, :, None], 0.0).flatten(2)
        flat_known, flat_index = known.flatten(1), keypoint_index.flatten(1)
        return {
            "keypoints": _placed(vectors, index, known.any(-1), map_wh).unflatten(1, (num_keypoints, 2)),
            "heatmap": heatmap,
            "heatmap_weight": torch.where(heatmap > 0, 1.0, weight),
            "heatmap_offset": _placed((xy - at).flatten(1, 2), flat_index, flat_known, map_wh),
            "keypoint_index": keypoint_index,
            "keypoint_weight": known.float(),
        }

    def _encode_visibility(
        self, targets: Targets, instance: Tensor, index: Tensor, size_wh: tuple[int, int], map_wh: tuple[int, int]
    ) -> Prediction:
        """Return the map of the states that labels give, and the weights of instances' keypoints."""
        visible_occluded = targets.known.new_zeros(targets.known.shape, dtype=torch.int64)
        labelled = counted = (targets.known > 0) & instance[..., None]
        if targets.occluded is None:
            counted = torch.zeros_like(labelled)
        else:
            visible_occluded = targets.occluded.long()
        # of the view, not of the map, which at the border may be smaller: what is on the last pixels is in the view
        limit = torch.tensor(size_wh, device=index.device) - 0.5
        inside = ((targets.xy >= -0.5) & (targets.xy < limit)).all(-1)
        state = torch.where(inside, visible_occluded, _ABSENT)
        if self.unlabelled == "absent" and targets.occluded is not None:
            missing = labelled.any(-1, keepdim=True) & ~labelled
            state, counted = torch.where(missing, _ABSENT, state), counted | missing
        one = functional.one_hot(state, 3) * counted[..., None]
        maps = _placed(one.float().flatten(2), index, counted.any(-1), map_wh)
        return {"visibility": maps.unflatten(1, (-1, 3)), "visibility_weight": counted.float()}

    def _encode_3d(
        self, targets: Targets, detected: Tensor, pixel: Tensor, index: Tensor, map_wh: tuple[int, int]
    ) -> Prediction:
        """Return the maps and weights of boxes in space.

        Raises:
            ValueError: The labels have none.
        """
        observed = targets.observed_3d
        if observed is None:
            if bool(detected.any()):
                raise ValueError(
                    "CenterNetCodec.boxes_3d needs labels with boxes in space (Instances.box_3d) and the calibration "
                    "of each image (Instances.projection), but these have none. Train on data that have them, such as "
                    "kitti or streets, or set codec.boxes_3d to false."
                )
            observed = torch.full((*detected.shape, 8), torch.nan, device=index.device)
        values, weights = targets_3d(observed.float(), detected, targets.scaled, self.focal_px, self.heading_bins)
        there = weights["rotation_weight"] > 0
        if self.middles_3d:
            middle = to_heatmap(observed[..., :2].float().nan_to_num(0.0), self.stride, self.alignment)
            values["middle_3d"] = middle - pixel
        return {name: _placed(value, index, there, map_wh) for name, value in values.items()} | weights

    def decode(self, prediction: Prediction) -> Decoded:
        """Decode the ``most`` highest peaks of a view, of all classes together, best first.

        Args:
            prediction: The keys of ``spec.outputs``, ``"center"`` and ``"heatmap"`` as logits.

        Returns:
            N = ``most`` instances (fewer if the map has fewer pixels), in view pixels. A regressed keypoint snaps to
            the nearest peak of its heatmap that scores above 0.1, lies in the box, and is closer than 0.3 times the
            box's longer side. A keypoint's score is that of the peak, else the heatmap's value where it lies. Places
            of a view that are not peaks are not ``valid``. With ``visibility``, every keypoint has the probabilities of
            its three states, and the most probable state; neither changes where a keypoint is or its score, so an
            absent one keeps both. A prediction without that output gives None for them. With ``boxes_3d``, every
            instance has an ``observed_3d``, which becomes a box in space with the calibration of the image.

        Source:
            Zhou et al. 2019, sections 3.1 and 4.2; thresholds from the public code.
        """
        center = prediction["center"].float()
        classes, height, width = center.shape[1:]
        # logits have the same order as their probabilities, so only those that are kept are converted
        logit, place = peaks(center).flatten(1).topk(min(self.most, classes * height * width), dim=1)
        score = logit.sigmoid()
        label, index = place // (height * width), place % (height * width)
        if self.features:
            chance, label = classified(prediction, index).softmax(-1).max(-1)
            score, order = (score * chance).topk(score.shape[1], dim=1)  # best first again
            label, index = label.gather(1, order), index.gather(1, order)
        pixel = torch.stack([index % width, index // width], -1).float()
        reach = float(4 * max(width, height))
        size = _gathered(prediction["size"], index, reach).clamp_min(0.0)
        middle = pixel + _gathered(prediction["center_offset"], index, reach)
        low, high = middle - size / 2, middle + size / 2
        box = to_input(torch.stack([low, high], -2), self.stride, self.alignment).flatten(-2)
        if not self.poses:
            xy, keypoint_score = middle[:, :, None][:, :, :0], score[..., None][..., :0]
            return Decoded(
                xy, keypoint_score, score > 0, label, score, box, observed_3d=self._observed(prediction, index, middle)
            )
        vectors = _gathered(prediction["keypoints"].flatten(1, 2), index, reach).unflatten(-1, (-1, 2))
        regressed = pixel[:, :, None] + vectors
        xy, keypoint_score = self._snapped(prediction, regressed, low, high)
        states = self._states(prediction, index)
        return Decoded(
            to_input(xy, self.stride, self.alignment), keypoint_score, score > 0, label, score, box,
            # from the order of the states to that of COCO's flags: absent 0, occluded 1, visible 2
            visibility=None if states is None else _ABSENT - states.argmax(-1),
            visibility_probability=states, observed_3d=self._observed(prediction, index, middle),
        )  # fmt: skip

    def _observed(self, prediction: Prediction, index: Tensor, middle: Tensor) -> Tensor | None:
        """Return what is observed of boxes in space ``(B, N, 8)`` at pixels ``(B, N)``, or None.

        Args:
            prediction: As in ``decode``.
            index: Pixels of the centres.
            middle: ``(B, N, 2)``, centres of the boxes in the image, map pixels.
        """
        if not self.boxes_3d:
            return None
        values = {
            name: _gathered(prediction[name], index, _LARGEST_LOGIT) for name in ("depth", "dimensions", "rotation")
        }
        if self.middles_3d:
            width = prediction["middle_3d"].shape[-1]
            pixel = torch.stack([index % width, index // width], -1).float()
            middle = pixel + _gathered(prediction["middle_3d"], index, float(8 * width))
        return decoded_3d(values, to_input(middle, self.stride, self.alignment), self.focal_px)

    def _states(self, prediction: Prediction, index: Tensor) -> Tensor | None:
        """Return the probabilities of visible, occluded and absent ``(B, N, K, 3)`` at pixels ``(B, N)``, or None."""
        if not self.visibility or "visibility" not in prediction:
            return None
        logits = _gathered(prediction["visibility"].flatten(1, 2), index, _LARGEST_LOGIT)
        return logits.unflatten(-1, (-1, 3)).softmax(-1)

    def _snapped(self, prediction: Prediction, regressed: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Return keypoints ``(B, N, K, 2)`` in map pixels after snapping, and their scores ``(B, N, K)``."""
        heatmap = prediction["heatmap"].float()
        height, width = heatmap.shape[2:]
        logit, index = peaks(heatmap).flatten(2).topk(min(self.most, height * width), dim=2)  # (B, K, M)
        score = logit.sigmoid()
        offset = _gathered(prediction["heatmap_offset"], index.flatten(1), float(width)).unflatten(1, index.shape[1:])
        candidate = torch.stack([index % width, index // width], -1).float() + offset  # (B, K, M, 2)
        away = (regressed[:, :, :, None] - candidate[:, None]).square().sum(-1).sqrt()  # (B, N, K, M)
        away = torch.where((score > _KEYPOINT_PEAK)[:, None], away, torch.inf)
        distance, nearest = away.min(-1)  # (B, N, K)
        instances = nearest.shape[1]
        at = nearest[..., None, None].expand(-1, -1, -1, 1, 2)
        snapped = candidate[:, None].expand(-1, instances, -1, -1, -1).gather(3, at).squeeze(3)
        peak = score[:, None].expand(-1, instances, -1, -1).gather(3, nearest[..., None]).squeeze(3)
        within = ((snapped >= low[:, :, None]) & (snapped <= high[:, :, None])).all(-1)
        longest = (high - low).amax(-1)[..., None]
        take = within & (distance < _SNAP_SHARE * longest)
        edge = torch.tensor([width - 1, height - 1], device=regressed.device, dtype=torch.float32)
        spot = torch.minimum(regressed.round().clamp_min(0.0), edge).long()
        flat = (spot[..., 1] * width + spot[..., 0]).transpose(1, 2)  # (B, K, N)
        value = heatmap.flatten(2).gather(2, flat).transpose(1, 2).sigmoid().nan_to_num(0.0)
        return torch.where(take[..., None], snapped, regressed), torch.where(take, peak, value)

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        """Convert the prediction for a flipped image into one for the original image.

        Offsets are left out, as in the public code: a flip test takes those of the image that was not flipped.
        """
        turned = {
            "center": _flipped(prediction["center"], self.alignment),
            "size": _flipped(prediction["size"], self.alignment),
        }
        if self.features:
            turned["features"] = _flipped(prediction["features"], self.alignment)
        if self.boxes_3d:
            turned |= {name: _flipped(maps, self.alignment) for name, maps in flipped_3d(prediction).items()}
        if self.poses:
            order = torch.as_tensor(skeleton.flip, device=prediction["keypoints"].device)
            vectors = prediction["keypoints"].index_select(1, order)
            vectors = torch.stack([-vectors[:, :, 0], vectors[:, :, 1]], 2)
            turned["keypoints"] = _flipped(vectors, self.alignment)
            turned["heatmap"] = flip_heatmaps(prediction["heatmap"], skeleton, self.alignment)
            if self.visibility and "visibility" in prediction:
                states = prediction["visibility"].index_select(1, order)
                turned["visibility"] = _flipped(states, self.alignment)
        return turned


def classified(prediction: Prediction, index: Tensor) -> Tensor:
    """Return the logits of the classes ``(B, N, C)`` at pixels ``(B, N)``, float32.

    Args:
        prediction: ``"features"`` ``(B, D, h, w)`` and ``"classifier"`` ``(B, C, D + 1)``, weights and then the bias.
        index: Pixels in row-major order.
    """
    features = _gathered(prediction["features"], index, _LARGEST_LOGIT)
    classifier = prediction["classifier"].float()
    return features @ classifier[..., :-1].transpose(1, 2) + classifier[:, None, :, -1]


def count_classes(targets: Targets, num_classes: int | None = None) -> int:
    """Return the number of classes to draw: ``num_classes``, or the largest label and 1 if that is None.

    Raises:
        ValueError: A label is not below ``num_classes``.
    """
    label = torch.where(targets.valid, targets.label, 0)
    largest = int(label.max()) if label.numel() else 0
    classes = largest + 1 if num_classes is None else num_classes or 1
    if largest >= classes:
        raise ValueError(
            f"A target has label {largest}, but there are {classes} classes, numbered from 0. Set the network's "
            "num_classes to the number of classes in the data."
        )
    return classes


def gaussian_radius(
    size_wh: Tensor, min_overlap: float = 0.7, formula: Literal["public", "exact"] = "public"
) -> Tensor:
    """Return how far a box's corners may be off while it overlaps the true box by at least ``min_overlap`` (IoU).

    The smallest of three cases counts: both corners off in the same direction, the box too small, the box too large.

    Args:
        size_wh: ``(..., 2)`` width and height, map pixels.
        min_overlap: Overlap in (0, 1).
        formula: "public" divides the roots of the second and third case by 2 instead of twice the leading
            coefficient, as the public code does; published results depend on it. "exact" solves the equations.

    Returns:
        ``(...)``, map pixels.

    Source:
        Law and Deng 2018 (CornerNet), section 3.3; Zhou et al. 2019, section 3.

    Example:
        >>> box = torch.tensor([10.0, 10.0])
        >>> round(float(gaussian_radius(box)), 3), round(float(gaussian_radius(box, formula="exact")), 3)
        (2.733, 0.817)
    """
    width, height = size_wh.double().unbind(-1)
    total, area = width + height, width * height
    first = (1.0, total, area * (1 - min_overlap) / (1 + min_overlap))
    second = (4.0, 2 * total, (1 - min_overlap) * area)
    third = (4 * min_overlap, -2 * min_overlap * total, (min_overlap - 1) * area)
    radii = []
    for number, (a, b, c) in enumerate((first, second, third)):
        root = (b.square() - 4 * a * c).clamp_min(0.0).sqrt()
        if formula == "public":
            radii.append((b + root) / 2)
        elif number == 2:
            radii.append((b + root) / (2 * a))
        else:
            radii.append((b - root) / (2 * a))
    return torch.stack(radii).amin(0).float()


def peaks(maps: Tensor) -> Tensor:
    """Return maps ``(B, C, h, w)`` with -inf where a pixel is not the largest of its 3 x 3 neighbours, or NaN."""
    maps = torch.where(maps.isnan(), -torch.inf, maps)
    return torch.where(functional.max_pool2d(maps, 3, stride=1, padding=1) == maps, maps, -torch.inf)


def _disc_gaussians(pixel: Tensor, radius: Tensor, map_wh: tuple[int, int]) -> Tensor:
    """Draw Gaussians at whole pixels ``(..., 2)``, clipped at their radius ``(...)``, sigma (2 r + 1) / 6."""
    sigma = ((2 * radius + 1) / 6)[..., None]
    sides = []
    for axis, side in ((1, map_wh[1]), (0, map_wh[0])):
        away = torch.arange(side, device=pixel.device) - pixel[..., axis, None]
        sides.append(torch.exp(-away.square() / (2 * sigma.square())) * (away.abs() <= radius[..., None]))
    return sides[0][..., :, None] * sides[1][..., None, :]


def _inside(low: Tensor, high: Tensor, map_wh: tuple[int, int]) -> Tensor:
    """Return which map pixels lie in boxes of corners ``(B, 2)``: ``(B, h, w)`` bool."""
    columns, rows = (torch.arange(side, device=low.device) for side in map_wh)
    across = (columns >= low[:, 0, None]) & (columns <= high[:, 0, None])
    down = (rows >= low[:, 1, None]) & (rows <= high[:, 1, None])
    return down[:, :, None] & across[:, None, :]


def _columns(chosen: Tensor) -> list[int]:
    """Return the numbers of the instances that are chosen ``(B, N)`` in any view, mostly few."""
    return chosen.any(0).nonzero().flatten().tolist()


def _without(maps: Tensor, low: Tensor, high: Tensor, chosen: Tensor) -> Tensor:
    """Return maps ``(B, 1, h, w)`` with 0 in the chosen boxes."""
    for n in _columns(chosen):
        inside = _inside(low[:, n], high[:, n], (maps.shape[-1], maps.shape[-2])) & chosen[:, n, None, None]
        maps = torch.where(inside[:, None], 0.0, maps)
    return maps


def _placed(values: Tensor, index: Tensor, chosen: Tensor, map_wh: tuple[int, int]) -> Tensor:
    """Put values ``(B, N, D)`` at pixels ``(B, N)`` of empty maps: ``(B, D, h, w)``; of several at one, the last."""
    width, height = map_wh
    maps = values.new_zeros(len(values), values.shape[-1], height * width)
    for n in range(values.shape[1]):
        at = index[:, n, None, None].expand(-1, values.shape[-1], 1)
        kept = torch.where(chosen[:, n, None, None], values[:, n, :, None], maps.gather(2, at))
        maps = maps.scatter(2, at, kept)
    return maps.unflatten(2, (height, width))


def _gathered(maps: Tensor, index: Tensor, most: float) -> Tensor:
    """Return values of maps ``(B, D, h, w)`` at pixels ``(B, N)``: ``(B, N, D)`` float32 in plus and minus ``most``."""
    at = index[:, None].expand(-1, maps.shape[1], -1)
    found = maps.flatten(2).gather(2, at).transpose(1, 2).float()
    return found.nan_to_num(0.0, most, -most).clamp(-most, most)


def _flipped(maps: Tensor, alignment: Alignment) -> Tensor:
    """Flip maps ``(..., w)``; with "corner" alignment they move right by a pixel, as in ``flip_heatmaps``."""
    flipped = maps.flip(-1)
    if alignment == "corner":
        flipped = torch.cat([flipped[..., :1], flipped[..., :-1]], -1)
    return flipped
