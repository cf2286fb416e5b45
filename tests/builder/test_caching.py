"""What exporters compute from the length of a past: told by its values, kept by slot, or refused by the name of the node."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError

TOKENS, SIZE, CAPACITY = 11, 4, 20
N = helper.make_node
STORED = {
    "words": np.random.default_rng(3).standard_normal((TOKENS, SIZE)).astype("f"),
    "table": np.random.default_rng(4).standard_normal((64, SIZE)).astype("f"),
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([0, 1]),
    "begin": np.array(0),
    "step": np.array(1),
    "nothing": np.array(0, "f"),
    "least": np.array(-3.4028235e38, "f"),
    "low": np.array(-1e4, "f"),
    "some": np.array(-5, "f"),
    "three": np.array(3),
}
LENGTHS = [
    N("Shape", ["input_ids"], ["new"], start=1, end=2),
    N("Shape", ["past_key_values.0.key"], ["held"], start=2, end=3),
    N("Add", ["new", "held"], ["all"]),
    N("Squeeze", ["held", "zero"], ["held0"]),
    N("Squeeze", ["all", "zero"], ["all0"]),
    N("Range", ["held0", "all0", "step"], ["rows"]),
    N("Range", ["begin", "all0", "step"], ["columns"]),
    N("Unsqueeze", ["rows", "one"], ["rows2"]),
    N("LessOrEqual", ["columns", "rows2"], ["seen"]),
]
ATTENTION = [
    N("Unsqueeze", ["x", "one"], ["x4"]),
    N("Concat", ["past_key_values.0.key", "x4"], ["present.0.key"], axis=2),
    N("Attention", ["x4", "present.0.key", "present.0.key", "mask"], ["y4"]),
    N("Squeeze", ["y4", "one"], ["logits"]),
]
WORDS = [N("Gather", ["words", "input_ids"], ["x"])]
SEEN = [N("Identity", ["seen"], ["mask"])]


def model_of(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    """A decoder whose attention is over the words themselves; its nodes and those of ``LENGTHS``, as far as they are read."""
    everything = [*LENGTHS, *nodes]
    read = {name for node in everything for name in node.input}
    graph = helper.make_graph(
        everything,
        "decoder",
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "seq"]),
            helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, ["batch", 1, "past", SIZE]),
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "seq", SIZE]),
            helper.make_tensor_value_info("present.0.key", TensorProto.FLOAT, ["batch", 1, "total", SIZE]),
        ],
        [numpy_helper.from_array(a, n) for n, a in STORED.items() if n in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def check(model: onnx.ModelProto, batch: int = 2, **options: Any) -> None:
    """Turns give what the model gives for the whole prompt, and slots of different lengths what each gives alone."""
    ids = np.random.default_rng(batch).integers(0, TOKENS, (batch, 15))
    with load(miniinfer_cli.build(model), "cpu") as whole:
        want = whole.run({"input_ids": ids, "past_key_values.0.key": np.zeros((batch, 1, 0, SIZE), "f")})["logits"]
    with load(miniinfer_cli.build(model, kv_cache=CAPACITY, **options), "cpu") as engine, engine.create_context() as context:
        assert [b.name for b in engine.inputs] == ["input_ids"]
        got = [context.run({"input_ids": ids[:, a:b]})["logits"] for a, b in ((0, 6), (6, 7), (7, 8), (8, 15))]
        np.testing.assert_allclose(np.concatenate(got, 1), want, rtol=0, atol=2e-6)
        context.reset()
        counts = [6 - 2 * slot for slot in range(batch)]
        context.run({"input_ids": ids[:, :6]}, counts=counts)
        (logits,) = context.run({"input_ids": np.stack([ids[i, n : n + 1] for i, n in enumerate(counts)])}).values()
        for slot, n in enumerate(counts):
            np.testing.assert_allclose(logits[slot, 0], want[slot, n], rtol=0, atol=2e-6)


WINDOW = [
    N("Sub", ["rows2", "three"], ["from"]),
    N("Greater", ["columns", "from"], ["near"]),
    N("And", ["seen", "near"], ["mask"]),
]


@pytest.mark.parametrize(
    "mask",
    [
        SEEN,
        WINDOW,
        [N("Where", ["seen", "nothing", "least"], ["mask"])],
        [N("Where", ["seen", "nothing", "low"], ["added"]), N("Unsqueeze", ["added", "two"], ["mask"])],
        [N("Not", ["seen"], ["hidden"]), N("Cast", ["hidden"], ["as"], to=1), N("Mul", ["as", "least"], ["mask"])],
    ],
    ids=["bool", "window", "least number", "ten thousand", "product"],
)
def test_masks_in_many_words(mask: list[onnx.NodeProto]) -> None:
    check(model_of(*WORDS, *mask, *ATTENTION))


def test_the_batch_of_a_past_is_no_length() -> None:
    """A shape that holds both is looked at for the batch alone."""
    shape = [N("Shape", ["past_key_values.0.key"], ["sizes"]), N("Gather", ["sizes", "zero"], ["batch"])]
    whole = [N("Concat", ["batch", "new", "four"], ["target"], axis=0), N("Reshape", ["w", "target"], ["x"])]
    words = [N("Gather", ["words", "input_ids"], ["w"]), N("Constant", [], ["four"], value_ints=[SIZE])]
    check(model_of(*words, *shape, *whole, *SEEN, *ATTENTION))


def test_a_length_among_what_is_computed_is_refused_where_they_meet() -> None:
    scaled = [N("Cast", ["held0"], ["n"], to=1), N("Sqrt", ["n"], ["root"]), N("Mul", ["w", "root"], ["x"])]
    model = model_of(N("Gather", ["words", "input_ids"], ["w"]), *scaled, *SEEN, *ATTENTION)
    with pytest.raises(ModelError, match=r"\(Mul\) uses the length of the cache, root, in the computation"):
        miniinfer_cli.build(model, kv_cache=CAPACITY)


def placed(*positions: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The words with a row of a table for each position ``at``."""
    return [
        N("Gather", ["words", "input_ids"], ["w"]),
        *positions,
        N("Gather", ["table", "at"], ["p"]),
        N("Add", ["w", "p"], ["x"]),
    ]


@pytest.mark.parametrize(
    "positions",
    [
        [N("Unsqueeze", ["rows", "zero"], ["at"])],
        [N("Unsqueeze", ["rows", "zero"], ["i"]), N("Cast", ["i"], ["at"], to=6)],
        [N("Range", ["begin", "new0", "step"], ["r"]), N("Add", ["r", "held"], ["s"]), N("Unsqueeze", ["s", "zero"], ["at"])],
    ],
    ids=["range", "i32", "sum"],
)
def test_positions_become_those_of_each_slot(positions: list[onnx.NodeProto]) -> None:
    before = [N("Squeeze", ["new", "zero"], ["new0"])]
    check(model_of(*before, *placed(*positions), *SEEN, *ATTENTION))


def test_positions_without_a_batch_are_for_one_slot() -> None:
    model = model_of(*placed(N("Identity", ["rows"], ["at"])), *SEEN, *ATTENTION)
    with pytest.raises(
        ModelError, match=r"\(Add\) uses the length of the cache, p, in the comp.*\n  hint: .* fix the batch at 1"
    ):
        miniinfer_cli.build(model, kv_cache=CAPACITY)
    named = model_of(*placed(N("Identity", ["rows"], ["at"])), *SEEN, *ATTENTION)
    for value in (*named.graph.input, *named.graph.output):
        value.type.tensor_type.shape.dim[0].ClearField("dim_param")
        value.type.tensor_type.shape.dim[0].dim_value = 1
    check(named, batch=1)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([N("Where", ["seen", "nothing", "some"], ["mask"])], "has a mask that adds to the scores of keys it shows"),
        (
            [N("Cast", ["columns"], ["far"], to=1), N("Where", ["seen", "far", "least"], ["mask"])],
            "has a mask that adds to the scores",
        ),
        ([N("Less", ["columns", "rows2"], ["mask"])], "hides a token from itself"),
        ([N("LessOrEqual", ["columns", "all0"], ["mask"])], "shows other keys than those in front of each token"),
        ([N("ReduceMax", ["w"], ["most"]), N("Greater", ["most", "nothing"], ["any"]), N("And", ["seen", "any"], ["mask"])],
         "has a mask that does not follow from lengths alone"),
    ],
)  # fmt: skip
def test_masks_that_are_none(mask: list[onnx.NodeProto], message: str) -> None:
    words = [N("Gather", ["words", "input_ids"], ["w"]), N("Identity", ["w"], ["x"])]
    model = model_of(*words, *mask, *ATTENTION)
    with pytest.raises(ModelError, match=f"attention over the cache {message}"):
        miniinfer_cli.build(model, kv_cache=CAPACITY)
