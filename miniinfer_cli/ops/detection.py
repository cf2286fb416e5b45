"""NonMaxSuppression: of boxes that overlap, the ones with the best scores."""

import numpy as np

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Array, DType, TensorType
from miniinfer_cli.ops.budget import check_time
from miniinfer_cli.ops.inference import UNKNOWN
from miniinfer_cli.ops.operands import expect_one_item, to_scalar
from miniinfer_cli.ops.registry import define
from miniinfer_cli.ops.shapes import expect_rank, same_dim


def infer_non_max_suppression(
    boxes: TensorType,
    scores: TensorType,
    max_output_boxes_per_class: TensorType | None = None,
    iou_threshold: TensorType | None = None,
    score_threshold: TensorType | None = None,
    *,
    center_point_box: int = 0,
) -> TensorType:
    """i64 [unknown, 3] from ``boxes`` [batch, count, 4] and ``scores`` [batch, classes, count]."""
    expect_rank("NonMaxSuppression boxes", boxes, 3)
    expect_rank("NonMaxSuppression scores", scores, 3)
    if center_point_box not in (0, 1):
        raise ModelError(f"NonMaxSuppression center_point_box {center_point_box} is neither 0 nor 1")
    expect_one_item("NonMaxSuppression max_output_boxes_per_class", max_output_boxes_per_class)
    expect_one_item("NonMaxSuppression iou_threshold", iou_threshold)
    expect_one_item("NonMaxSuppression score_threshold", score_threshold)
    if boxes.shape is not None:
        same_dim("NonMaxSuppression", f"coordinates of boxes {boxes}", boxes.shape[2], 4)
        if scores.shape is not None:
            same_dim("NonMaxSuppression", f"batch of boxes {boxes} and scores {scores}", boxes.shape[0], scores.shape[0])
            same_dim("NonMaxSuppression", f"count of boxes {boxes} and scores {scores}", boxes.shape[1], scores.shape[2])
    return TensorType(DType.I64, (UNKNOWN, 3))


def non_max_suppression(
    boxes: Array,
    scores: Array,
    max_output_boxes_per_class: Array | None = None,
    iou_threshold: Array | None = None,
    score_threshold: Array | None = None,
    *,
    center_point_box: int = 0,
) -> Array:
    """The (batch, class, box) triples of the boxes kept, best score first within each class.

    Boxes whose overlap with a better one exceeds the threshold go. Source: ONNX NonMaxSuppression-11.
    """
    limit = 0 if max_output_boxes_per_class is None else int(to_scalar(max_output_boxes_per_class))
    overlap = 0.0 if iou_threshold is None else float(to_scalar(iou_threshold))
    least = None if score_threshold is None else to_scalar(score_threshold)
    triples = [np.empty((0, 3), np.int64)]
    for batch, class_scores in enumerate(scores if limit > 0 else scores[:0]):
        corners = _corners(boxes[batch], center_point_box)
        for number, ranking in enumerate(class_scores):
            order = np.argsort(-ranking, kind="stable")
            if least is not None:
                order = order[ranking[order] > least]
            kept = _kept(corners[:, order], limit, overlap)
            triple = np.empty((len(kept), 3), np.int64)
            triple[:, 0], triple[:, 1], triple[:, 2] = batch, number, order[kept]
            triples.append(triple)
    return np.concatenate(triples)


def _corners(boxes: Array, center_point_box: int) -> Array:
    """[4, count]: the low and high ends of the first axis, then of the second."""
    a, b, c, d = boxes.T
    if center_point_box:  # x, y, width, height
        return np.stack([b - d / 2, b + d / 2, a - c / 2, a + c / 2])
    return np.stack([np.minimum(a, c), np.maximum(a, c), np.minimum(b, d), np.maximum(b, d)])


def _kept(corners: Array, limit: int, overlap: float) -> list[int]:
    """The places, in order, of the boxes that no box kept before them overlaps too much."""
    low_y, high_y, low_x, high_x = corners
    areas = (high_y - low_y) * (high_x - low_x)
    kept: list[int] = []
    left = np.arange(corners.shape[1])
    while left.size and len(kept) < limit:
        check_time()
        best, left = left[0], left[1:]
        kept.append(int(best))
        height = np.minimum(high_y[best], high_y[left]) - np.maximum(low_y[best], low_y[left])
        width = np.minimum(high_x[best], high_x[left]) - np.maximum(low_x[best], low_x[left])
        shared = np.maximum(height, 0) * np.maximum(width, 0)
        union = np.where(shared > 0, areas[best] + areas[left] - shared, 1)  # two boxes without area have none
        left = left[shared / union <= overlap]
    return kept


NON_MAX_SUPPRESSION = define("NonMaxSuppression", infer=infer_non_max_suppression, reference=non_max_suppression)
