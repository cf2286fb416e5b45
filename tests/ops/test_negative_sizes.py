"""A node whose result would have a negative size is refused: by the build where the sizes are known, else by the run."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from tests.everywhere import fails_everywhere, parsed

# The graph's text, its input's shape at the run, and what is said.
CASES = {
    "Conv": ("w = Constant <value_floats=[1.,1.,1.]> () k = Reshape (w, three) y = Conv (x, k)", (1, 1, 2), "a kernel of 3"),
    "MaxPool": ("y = MaxPool <kernel_shape=[3]> (x)", (1, 1, 2), "a kernel of 3"),
    "AveragePool": ("y = AveragePool <kernel_shape=[3]> (x)", (1, 1, 2), "a kernel of 3"),
    "Pad": ("p = Constant <value_ints=[0,0,-1,0,0,-2]> () y = Pad (x, p)", (1, 1, 2), "Pad crops axis 2"),
    "Resize": ("s = Shape (x) t = Sub (s, two) y = Resize <mode=\"nearest\"> (x, , , t)", (1, 1, 3), "which has a negative size"),
    "MaxUnpool": (
        "s = Shape (x) t = Sub (s, two) i = Cast <to=7> (x) y = MaxUnpool <kernel_shape=[1]> (x, i, t)",
        (1, 1, 2),
        "f32.-1,-1,0., which has a negative size",
    ),
    "ConstantOfShape": ("s = Shape (x) t = Sub (s, two) y = ConstantOfShape (t)", (1, 1, 5), "negative dimension"),
    "Expand": ("s = Shape (x) t = Sub (s, two) o = Constant <value_float=1.0> () y = Expand (o, t)", (1, 1, 5), "negative"),
    "Tile": ("s = Shape (x) t = Sub (s, two) y = Tile (x, t)", (1, 1, 5), "not all 0 or more"),
    "OneHot": (
        """s = Shape <start=2> (x) t = Sub (s, two) v = Constant <value_floats=[0.0,1.0]> ()
           i = Constant <value_ints=[0]> () y = OneHot (i, t, v)""",
        (1, 1, 1),
        "OneHot depth -1 is negative",
    ),
}  # fmt: skip


def model(kind: str, dims: str):
    constants = "<int64[1] two={2}, int64[3] three={1,1,3}>"
    return parsed(f"g (float[{dims}] x) => (float[A] y) {constants} {{ {CASES[kind][0]} }}", opset=22)


@pytest.mark.parametrize("kind", CASES)
def test_where_the_sizes_are_known_the_build_refuses(kind: str):
    _, shape, message = CASES[kind]
    with pytest.raises(ModelError, match=rf"node 'y' .*{message}"):
        miniinfer_cli.build(model(kind, ",".join(map(str, shape))))


@pytest.mark.parametrize("kind", CASES)
def test_where_they_are_not_the_run_refuses(kind: str):
    _, shape, message = CASES[kind]
    fails_everywhere(model(kind, "N,C,W"), {"x": np.zeros(shape, np.float32)}, rf"node .*{message}")
