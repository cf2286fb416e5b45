"""Two sets of outputs: figures, tolerances by type or by --rtol and --atol, and what no number can be said of."""

import math

import ml_dtypes
import numpy as np
import pytest

from miniinfer_cli.comparison.outputs import Closeness, compare_output, compare_outputs, pair_by_place

A = np.array([[1.0, 2.0, 3.0], [6.0, 5.0, 4.0]], np.float32)


def test_the_figures():
    b = A.copy()
    b[1] = 4.0, 5.0, 3.0
    found = compare_output("y", A, b)
    difference = np.array([-2.0, 0.0, -1.0])
    assert found.error.absolute == 2.0
    assert found.error.relative == pytest.approx(np.linalg.norm(difference) / np.linalg.norm(A))
    assert found.cosine == pytest.approx(np.vdot(A, b) / np.linalg.norm(A) / np.linalg.norm(b))
    assert found.argmax == 0.5
    assert (found.error.ok, found.beyond) == (False, None)
    same = compare_output("y", A, A.copy())
    assert (same.error.ok, same.error.absolute, same.cosine, same.argmax) == (True, 0.0, pytest.approx(1.0), 1.0)


@pytest.mark.parametrize(
    ("change", "closeness", "ok", "beyond"),
    [
        (0.01, Closeness(0.0, 0.02), True, 0.0),
        (0.01, Closeness(0.0, 0.005), False, 1 / 6),
        (0.01, Closeness(0.01, 0.0), True, 0.0),  # of 2
        (0.01, Closeness(0.001, 0.0), False, 1 / 6),
    ],
)
def test_closeness_of_each_element(change, closeness, ok, beyond):
    b = A.copy()
    b[0, 1] += change
    found = compare_output("y", A, b, 1.0, closeness)
    assert (found.error.ok, found.beyond) == (ok, pytest.approx(beyond))
    assert found.to_json()["tolerance"] is None


def test_closeness_of_what_is_not_finite():
    a = np.array([np.nan, np.inf, 1.0])
    assert compare_output("y", a, a.copy(), closeness=Closeness(0, 0)).error.ok
    assert not compare_output("y", a, np.array([np.nan, -np.inf, 1.0]), closeness=Closeness(1, 1)).error.ok
    assert not compare_output("y", a, np.array([0.0, np.inf, 1.0]), closeness=Closeness(1, 1)).error.ok


def test_types_have_tolerances_and_the_coarser_counts():
    near = A * np.float32(1.001)
    assert not compare_output("y", A, near).error.ok
    assert compare_output("y", A, near, 5e-3).error.ok
    assert compare_output("y", A, near.astype(np.float16)).error.ok
    assert compare_output("y", A.astype(ml_dtypes.bfloat16), near).error.ok
    assert not compare_output("y", A, near.astype(np.float64)).error.ok
    assert compare_output("y", A.astype(np.int32), A.astype(np.int64)).error.ok
    assert not compare_output("y", A.astype(np.int32), A.astype(np.int64) + 1).error.ok
    assert not compare_output("y", A.astype(np.int32), A).error.ok  # a number that was rounded is another


def test_shapes_texts_and_sequences():
    other = compare_output("y", A, A[:1])
    assert (other.error.ok, other.cosine, other.argmax) == (False, None, None)
    assert math.isinf(other.error.relative)
    assert "f32[1,3] instead of f32[2,3]" in other.error.reason
    words = np.array(["a", "b"], object)
    assert compare_output("y", words, words.copy()).error.ok
    assert not compare_output("y", words, words[::-1]).error.ok
    assert compare_output("y", [A, A], [A, A.copy()]).error.ok
    assert not compare_output("y", [A, A], [A, -A]).error.ok


def test_vectors_without_length_and_rows_without_entries():
    zeros = np.zeros((2, 1), np.float32)
    found = compare_output("y", zeros, zeros.copy())
    assert (found.error.ok, found.cosine, found.argmax) == (True, None, None)
    huge = np.full(4, 3e38, np.float32)
    assert compare_output("y", huge, huge / 2).cosine == pytest.approx(1.0)
    empty = compare_output("y", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32), closeness=Closeness(0, 0))
    assert (empty.error.ok, empty.beyond, empty.argmax) == (True, 0.0, None)


def test_names():
    found = compare_outputs({"x": A, "y": A}, {"y": A, "z": A}, {})
    assert [(d.error.name, d.error.ok, d.error.reason) for d in found] == [
        ("x", False, "only A has it"), ("y", True, ""), ("z", False, "only B has it"),
    ]  # fmt: skip
    b, note = pair_by_place({"x": 1, "y": 2}, {"p": 3, "q": 4})
    assert (b, note) == (
        {"x": 3, "y": 4}, "no output has the same name in both; compared in their order: x with p, y with q",
    )  # fmt: skip
    for b in ({"p": 3}, {"x": 3, "q": 4}, {}):
        assert pair_by_place({"x": 1, "y": 2}, b) == (b, "")
