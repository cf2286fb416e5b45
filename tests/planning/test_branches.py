"""Which graphs small inputs may choose by the branches that they decide: as many as are asked for, and few that do not fit."""

import numpy as np
import pytest
from onnx import numpy_helper

import miniinfer_cli
from engine_format.records import DimensionRange
from miniinfer_cli.devices.placement import place
from miniinfer_cli.ir import DType, TensorType
from miniinfer_cli.planning.branches import BranchedGraphs, _Stage
from miniinfer_cli.planning.thaw import thaw
from tests.everywhere import parsed

COUNT = 12  # 4096 choices


def _ifs(*branches: str):
    """A graph of 12 Ifs, each by an input of its own; the first has these branches, the others fit every size."""
    inputs = "".join(f", bool c{i}" for i in range(COUNT))
    lines = []
    for i in range(COUNT):
        then, other = branches if i == 0 else ("Neg(#)", "Abs(#)")
        v = "x" if i == 0 else f"v{i - 1}"
        lines.append(
            f"v{i} = If(c{i}) <then_branch = t{i} () => (float[N] a{i}) {{ a{i} = {then.replace('#', v)} }},"
            f" else_branch = e{i} () => (float[N] b{i}) {{ b{i} = {other.replace('#', v)} }}>"
        )
    model = parsed(f"g (float[N] x{inputs}) => (float[N] v{COUNT - 1}) {{ {' '.join(lines)} }}")
    model.graph.initializer.append(numpy_helper.from_array(np.array([5]), "five"))
    return thaw(miniinfer_cli.build(model, opt_level=0))


@pytest.fixture
def tried(monkeypatch):
    """The decisions that were looked at."""
    decisions = []
    after = _Stage.after
    monkeypatch.setattr(_Stage, "after", lambda stage, taken: decisions.append(taken) or after(stage, taken))
    return decisions


TYPES = [TensorType(DType.F32, (3,)), *[TensorType(DType.BOOL, ())] * COUNT]


def test_as_many_as_are_asked_for(tried):
    graphs = BranchedGraphs(_ifs("Neg(#)", "Abs(#)")).possible(TYPES, 5)
    assert len(graphs) == len(tried) == len(set(tried)) == 5
    assert len({tuple(n.op for n in g) for g in graphs}) == 5
    assert not any(n.op == "If" for g in graphs for n in g)


def test_those_that_do_not_fit_are_tried_four_times_as_often_as_any_is_wanted(tried):
    graph = _ifs("Reshape(#, five)", "Abs(#)")  # half of all do not fit, and come first
    assert BranchedGraphs(graph).possible(TYPES, 5) == []
    assert len(tried) == 20


def test_none_that_fit():
    placed = place(_ifs("Reshape(#, five)", "Abs(#)"), {"N": DimensionRange("N", 3, 3, 3)})
    assert placed.lines() == [
        "On a GPU: not known before a run: the optimal sizes (N = 3) do not go through the model:"
        " none of the branches that small inputs may choose fit these sizes;"
        " build with sizes that do, opt_shapes of x:N, to see it"
    ]
