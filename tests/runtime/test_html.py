"""What a notebook shows of engines and their outputs."""

import pickle

import numpy as np

import miniinfer_cli
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.html import Outputs
from tests.graph_text import typed_graph


def test_an_engine():
    graph = typed_graph("graph main(x: f32[n,4]) {\n  y = Relu(x)\n  return y\n}")
    with miniinfer_cli.load(freeze(graph), device="cpu") as engine:
        shown = engine._repr_html_()
        outputs = engine.run({"x": np.array([[1, -2, 3, 4]], np.float32)})
    assert shown.startswith("<p>miniinfer engine on <b>cpu</b></p><table>")
    assert "<td>input</td><td>x</td><td>f32[n,4]</td>" in shown
    assert "<td>output</td><td>y</td><td>f32[n,4]</td>" in shown
    assert ", closed" in engine._repr_html_()
    assert isinstance(outputs, dict)
    assert type(pickle.loads(pickle.dumps(outputs))) is dict
    assert "<td>y</td><td>f32[1,4]</td><td>0</td><td>2</td><td>4</td>" in outputs._repr_html_()


def test_outputs_of_every_kind():
    shown = Outputs(
        {
            "<b>\x1b": np.array(["a"], object),
            "q": [np.zeros(2), np.zeros(3)],
            "e": np.zeros((0, 2)),
            "c": np.zeros(1, np.complex64),
        }
    )._repr_html_()
    assert "<td>&lt;b&gt;\\x1b</td><td>str[1]</td><td></td>" in shown
    assert "<td>q</td><td>list of 2</td>" in shown
    assert "<td>f64[0,2]</td><td></td>" in shown
    assert "<td>c64[1]</td><td></td>" in shown


def test_many_rows_are_cut():
    shown = Outputs({f"o{n}": np.zeros(1) for n in range(60)})._repr_html_()
    assert "<td>10 more</td>" in shown
    assert "<td>o49</td>" in shown
    assert "<td>o50</td>" not in shown
