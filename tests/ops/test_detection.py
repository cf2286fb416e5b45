"""NonMaxSuppression against the definition, box by box; limits, thresholds, box formats."""

import numpy as np
import pytest

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import DType, TensorType, symbol
from miniinfer_cli.ops import lookup
from tests.ops.checked import infer


def suppress(boxes, scores, limit=99, overlap=0.5, least=None, **attrs):
    operands = [np.array([limit]), np.array([overlap], np.float32)]
    if least is not None:
        operands.append(np.array(least, np.float32))
    (got,) = lookup("", "NonMaxSuppression").evaluate([boxes, scores, *operands], attrs, n_outputs=1)
    assert got.dtype == np.int64
    return got.tolist()


def overlap_of(a, b):
    (top, left), (bottom, right) = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = max(bottom - top, 0) * max(right - left, 0)
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return shared / (sum(areas) - shared) if shared and all(areas) else 0


def by_definition(boxes, scores, limit, overlap, least):
    kept = []
    for batch, label in np.ndindex(scores.shape[:2]):
        chosen = []
        ranking = sorted(range(boxes.shape[1]), key=lambda i: (-scores[batch, label, i], i))
        for i in (r for r in ranking if scores[batch, label, r] > least):
            if len(chosen) < limit and all(overlap_of(boxes[batch, i], boxes[batch, j]) <= overlap for j in chosen):
                chosen.append(i)
        kept += [[batch, label, i] for i in chosen]
    return kept


@pytest.mark.parametrize("limit", [0, 3, 99])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 1.0])
def test_keeps_what_the_definition_keeps(limit, overlap):
    rng = np.random.default_rng(8)
    corners = rng.integers(0, 9, (2, 60, 4)).astype(np.float32)
    scores = rng.integers(0, 6, (2, 3, 60)).astype(np.float32)  # with many ties
    boxes = np.concatenate([np.minimum(corners[..., :2], corners[..., 2:]), np.maximum(corners[..., :2], corners[..., 2:])], -1)
    expected = by_definition(boxes.astype(float), scores, limit, overlap, 1)
    assert suppress(corners, scores, limit, overlap, 1) == expected
    y1, x1, y2, x2 = np.moveaxis(boxes, -1, 0)
    centers = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], -1)
    assert suppress(centers, scores, limit, overlap, 1, center_point_box=1) == expected


def test_an_overlap_of_exactly_the_threshold_is_kept():
    boxes = np.array([[[0, 0, 1, 1], [0, 0, 1, 0.5], [0, 0, 1, 0.75]]], np.float32)
    assert suppress(boxes, np.array([[[3, 2, 1]]], np.float32), overlap=0.5) == [[0, 0, 0], [0, 0, 1]]


def test_a_score_of_exactly_the_threshold_is_not():
    boxes = np.array([[[0, 0, 1, 1], [5, 5, 6, 6]]], np.float32)
    scores = np.array([[[0.5, 0.75]]], np.float32)
    assert suppress(boxes, scores, least=0.5) == [[0, 0, 1]]
    assert suppress(boxes, -scores) == [[0, 0, 0], [0, 0, 1]]


def test_without_a_threshold_boxes_may_touch_but_not_overlap():
    boxes = np.array([[[0, 0, 1, 1], [1, 0, 2, 1], [0.95, 0, 2, 1]]], np.float32)
    scores = np.array([[[3, 2, 1]]], np.float32)
    (got,) = lookup("", "NonMaxSuppression").evaluate([boxes, scores, np.array(3)], {}, n_outputs=1)
    assert got.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_without_a_limit_nothing_is_kept():
    (got,) = lookup("", "NonMaxSuppression").evaluate([np.ones((1, 2, 4)), np.ones((1, 1, 2))], {}, n_outputs=1)
    np.testing.assert_array_equal(got, np.empty((0, 3), np.int64), strict=True)


def test_shapes():
    n = symbol("n")
    boxes, scores = TensorType(DType.F32, (1, n, 4)), TensorType(DType.F32, (1, 80, n))
    type = infer("NonMaxSuppression", boxes, scores)
    assert (type.dtype, [str(d) for d in type.shape]) == (DType.I64, ["?y0.0", "3"])
    for bad in ((2, 80, n), (1, 80), (1, 80, 5)):
        with pytest.raises(ModelError):
            infer("NonMaxSuppression", TensorType(DType.F32, (1, 7, 4)), TensorType(DType.F32, bad))
    with pytest.raises(ModelError, match="coordinates of boxes"):
        infer("NonMaxSuppression", TensorType(DType.F32, (1, n, 5)), scores)
    with pytest.raises(ModelError, match="center_point_box 2"):
        infer("NonMaxSuppression", boxes, scores, center_point_box=2)
