"""A node whose result would have a negative size is refused: by the build where the sizes are known, else by the run."""

import numpy as np
import pytest

import miniinfer_cli
from miniinfer_cli.errors import ModelError
from tests.everywhere import engines_everywhere, fails_everywhere, parsed

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


# What a run alone tells, and how many numbers there are of it: the node, a value that fits, what does not, and what that says.
LATE = {
    "Resize to a negative size": ("int64[K] s", "y = Resize (x, , , s)", [1, 1, 2, 4], [1, 1, -2, 2], "negative dimension"),
    "Resize by a negative scale": ("float[K] s", "y = Resize (x, , s)", [1, 1, 1, 2], [1, 1, -1, 2], "not all positive"),
    "Resize by no scale": ("float[K] s", "y = Resize (x, , s)", [1, 1, 1, 2], [1, 1, 0, 2], "not all positive"),
    "Resize to three sizes": ("int64[K] s", "y = Resize (x, , , s)", [1, 1, 2, 4], [1, 1, 2], "3 sizes for 4 axes"),
    "Pad of ten sides": ("int64[K] s", "y = Pad (x, s)", [0] * 7 + [1], [0] * 10, "10 pads for 4 axes"),
    "RoiAlign of a region": (
        "float[N] s",
        """n = NonZero (s) m = Squeeze (n) b = Constant <value_ints=[0,0]> ()
           r = Constant <value = float[2,4] {0,0,1,1,0,0,1,1}> ()
           rois = Gather (r, m) images = Gather (b, m) y = RoiAlign (x, rois, images)""",
        [1, 1], [0, 1], "RoiAlign",
    ),
    "HannWindow": ("int64 s", "w = HannWindow (s) y = Sum (w, w)", 3, -3, "HannWindow size is -3"),
    "STFT of no step": (
        "int64 s", "t = Constant <value_ints=[1,2,1]> () z = Reshape (x, t) y = STFT (z, s)", 1, 0, "frame_step is 0",
    ),
    "STFT of long frames": (
        "int64 s",
        "t = Constant <value_ints=[1,2,1]> () z = Reshape (x, t) o = Constant <value_int=1> () y = STFT (z, o, , s)",
        2, 3, "frame_length is 3, expected 1 to 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LATE)
def test_what_only_a_run_tells_is_refused_by_the_run(kind: str):
    given, nodes, fits, misfit, message = LATE[kind]
    proto = parsed(f"g (float[1,1,1,2] x, {given}) => (float y) {{ {nodes} }}", opset=20)
    proto.graph.output[0].type.ClearField("tensor_type")
    dtype, x = (np.float32 if given.startswith("float") else np.int64), np.ones((1, 1, 1, 2), np.float32)
    for engine in engines_everywhere(proto):
        assert engine.run({"x": x, "s": np.array(fits, dtype)})["y"].size
        with pytest.raises(ModelError, match=message):
            engine.run({"x": x, "s": np.array(misfit, dtype)})
