"""Columns through a plan: pieces and padding, names, and what is refused."""

import numpy as np
import pytest

from engine_format import DimensionRange
from miniinfer_cli.errors import UsageError
from miniinfer_cli.integrations.columns import ColumnPredictor
from tests.emulation.engine import open_emulated, plan_of
from tests.serving.staged import open_cpu

TWO = "graph main(x: f32[n,3], k: i64[n]) {\n  y = Neg(x)\n  m = Neg(k)\n  return y, m\n}"
FIXED = TWO.replace("[n", "[4")
BEHIND = "graph main(x: f32[3,n]) {\n  y = Neg(x)\n  return y\n}"


def batch(rows, **more):
    return {"x": np.arange(3 * rows, dtype=np.float32).reshape(rows, 3), "k": np.arange(rows), **more}


def shapes_of(engine, monkeypatch):
    """The sizes of the first input that are computed from now on."""
    found = []
    enqueue = type(engine.create_context()).enqueue
    monkeypatch.setattr(
        "miniinfer_cli.runtime.context.Context.enqueue",
        lambda self, inputs, **named: found.append(next(iter(inputs.values())).shape) or enqueue(self, inputs, **named),
    )
    return found


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("rows", [1, 4, 9, 21])
@pytest.mark.parametrize("text", [TWO, FIXED], ids=["open", "fixed"])
def test_rows_of_any_number_come_back_in_order(device, rows, text):
    given = batch(rows)
    with open_cpu(text) if device == "cpu" else open_emulated(plan_of(text)) as engine:
        predictor = ColumnPredictor(engine)
        for _ in range(2):
            found = predictor(given)
            assert list(found) == ["y", "m"]
            np.testing.assert_array_equal(found["y"], -given["x"])
            np.testing.assert_array_equal(found["m"], -given["k"])
        predictor.close()
        predictor.close()


def test_pieces_are_of_few_sizes(monkeypatch):
    with open_cpu(TWO) as engine:
        predictor, sizes = ColumnPredictor(engine), shapes_of(engine, monkeypatch)
        for rows in (21, 21, 9, 64, 63):  # the ladder beyond 8 has four sizes to the octave
            predictor(batch(rows))
        assert [s[0] for s in sizes] == [21, 21, 10, 64, 64]
        limited = ColumnPredictor(engine, max_batch=8)
        del sizes[:]
        limited(batch(21))
        assert [s[0] for s in sizes] == [8, 8, 5]
    with open_cpu(FIXED) as engine:
        predictor, sizes = ColumnPredictor(engine), shapes_of(engine, monkeypatch)
        predictor(batch(9))
        assert [s[0] for s in sizes] == [4, 4, 4]
    with open_cpu(TWO, [DimensionRange("n", 3, 4, 6)]) as engine:
        predictor, sizes = ColumnPredictor(engine), shapes_of(engine, monkeypatch)
        assert len(predictor(batch(1))["y"]) == 1
        assert len(predictor(batch(14))["y"]) == 14
        assert [s[0] for s in sizes] == [3, 6, 6, 3]


def test_a_piece_is_filled_up_with_its_last_row():
    """Another value might be none that the plan takes: here an index."""
    text = """graph main(k: i64[n]) {
  t: f32[3] = const [0.5, 1.5, 2.5]
  less: i64[1] = const [-5]
  z = Add(k, less)
  y = Gather(t, z)
  return y
}"""
    with open_cpu(text) as engine:
        with pytest.raises(UsageError):
            engine.run({"k": np.zeros(1, np.int64)})
        predictor = ColumnPredictor(engine)
        for rows in (10, 9):  # of 10 as well
            assert predictor({"k": np.full(rows, 2)})["y"].tolist() == [0.5] * rows


def test_rows_lie_where_the_plan_has_its_batch():
    with open_cpu(BEHIND) as engine:
        x = np.arange(15, dtype=np.float32).reshape(5, 3)
        np.testing.assert_array_equal(ColumnPredictor(engine, batch_dim="n", max_batch=2)({"x": x})["y"], -x)


def test_columns_have_names_of_their_own():
    with open_cpu(TWO) as engine:
        given = {"features": batch(3)["x"], "k": np.arange(3), "id": np.array(["a", "b", "c"])}
        predictor = ColumnPredictor(engine, columns={"x": "features"}, outputs={"y": "scores"})
        assert list(predictor(given)) == ["id", "scores", "m"]
        assert list(ColumnPredictor(engine, columns={"x": "features"}, keep=["k"])(given)) == ["k", "y", "m"]
        assert list(ColumnPredictor(engine, columns={"x": "features"}, keep=[])(given)) == ["y", "m"]


def test_no_rows_give_columns_of_no_rows():
    with open_cpu(TWO) as engine:
        found = ColumnPredictor(engine)(batch(0))
        assert [(a.shape, a.dtype) for a in found.values()] == [((0, 3), np.float32), ((0,), np.int64)]


def test_rows_may_be_arrays_in_an_array():
    with open_cpu(TWO) as engine:
        rows = np.empty(2, object)
        rows[:] = [np.ones(3, np.float32), np.zeros(3, np.float32)]
        found = ColumnPredictor(engine)({"x": rows, "k": [1, 2]})
        assert found["y"].tolist() == [[-1, -1, -1], [0, 0, 0]]
        rows[1] = np.zeros(2, np.float32)
        with pytest.raises(UsageError, match=r"column 'x' has rows of different shapes: \[2\] and \[3\]"):
            ColumnPredictor(engine)({"x": rows, "k": [1, 2]})


@pytest.mark.parametrize(
    ("arguments", "given", "told"),
    [
        ({"columns": {"z": "a"}}, batch(1), "columns: there is no input 'z'\n  hint: the inputs are x, k"),
        ({"outputs": {"z": "a"}}, batch(1), "outputs: there is no output 'z'\n  hint: the outputs are y, m"),
        ({"outputs": {"y": "a", "m": "a"}}, batch(1), "two of them go to the column 'a'"),
        ({"keep": ["id"]}, batch(1), "keep: there is no column 'id'\n  hint: the columns are x, k"),
        ({}, {"x": batch(1)["x"]}, "there is no column 'k', which input 'k' is to come from\n  hint: the columns are x;"),
        ({}, batch(1, y=np.ones(1)), "output 'y' and a column that is kept are both called 'y'"),
        ({}, {**batch(2), "k": np.arange(3)}, "the columns of the inputs differ in length: x has 2 rows, k has 3 rows"),
        ({}, {**batch(2), "k": np.array(3)}, "k has no rows"),
        ({}, {**batch(2), "x": np.ones((2, 4), np.float32)}, "input 'x'"),
        ({}, [1, 2], "expected columns by name, got list"),
    ],
)
def test_what_does_not_fit_is_told(arguments, given, told):
    with open_cpu(TWO) as engine, pytest.raises(UsageError, match=told.replace("(", r"\(")):
        ColumnPredictor(engine, **arguments)(given)
