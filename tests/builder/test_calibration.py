"""Scales: histograms and the four methods, files of scales (TensorRT's too), samples and the pieces they are cut into."""

import struct

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_format.records import DimensionRange
from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.calibration.cache import read_cache, write_cache
from miniinfer_cli.builder.calibration.calibrate import Method
from miniinfer_cli.builder.calibration.data import ROWS, Samples, pieces
from miniinfer_cli.builder.calibration.histogram import METHODS, Histogram
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir import DType, Graph, TensorType, symbol
from miniinfer_cli.ir.quantization import FP8, INT8
from miniinfer_cli.ops.cast import convert
from miniinfer_cli.verification.floating import find_float


def counted(*arrays):
    histogram = Histogram()
    for array in arrays:
        histogram.add(np.asarray(array, np.float32))
    return histogram


def mean_square(x, scale):
    return np.mean((x - np.clip(np.rint(x / scale), -127, 127) * scale) ** 2)


def test_minmax_is_the_largest_magnitude():
    assert counted([0.5, -3.0], [1.0, 2.0]).end("minmax") == 3


def test_bins_double_where_a_larger_number_comes_and_no_count_is_lost():
    small = counted(np.linspace(0.01, 1, 500))
    small.add(np.float32([5.0, -6.0]))
    assert small.counts.sum() == 502
    assert small.width * 2048 == pytest.approx(8.0)
    # The 500 lie in the first eighth as they do in bins that were so wide from the beginning, but for rounding at an edge.
    wide = counted([8.0], np.linspace(0.01, 1, 500), [5.0, -6.0])
    assert np.abs(np.cumsum(small.counts) - np.cumsum(wide.counts))[:2047].max() <= 1


def test_percentile_leaves_the_outliers_out():
    x = np.concatenate([np.full(9_999, 1.0), [100.0]])
    assert counted(x).end("percentile", 99.9) == pytest.approx(1, rel=0.1)
    assert counted(x).end("percentile", 100) == pytest.approx(100, rel=0.01)


def test_a_few_outliers_do_not_decide_by_entropy():
    x = np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    x[:3] = 60.0
    scale = counted(x).end("entropy") / 127
    assert 2 / 127 < scale < 30 / 127
    assert mean_square(x[3:], scale) < mean_square(x[3:], 60 / 127)


def test_mse_is_about_the_best_of_all_scales():
    x = np.random.default_rng(1).laplace(size=20_000).astype(np.float32)
    best = min(mean_square(x, end / 127) for end in np.linspace(1, np.abs(x).max(), 200))
    assert mean_square(x, counted(x).end("mse") / 127) < 1.02 * best


@pytest.mark.parametrize("method", METHODS)
def test_values_in_one_place_and_none_at_all(method):
    assert counted(np.zeros(5)).end(method) == 0.0
    one = counted(np.full(7, 2.5)).end(method)
    assert np.clip(np.rint(2.5 / one), -127, 127) * one == pytest.approx(2.5, rel=0.01)


def test_the_best_end_of_floats_is_judged_by_floats():
    """A long tail costs floats of 8 bits little: they keep nearly all of it where integers cut it."""
    x = np.random.default_rng(0).standard_t(3, 200000).astype(np.float32)
    counts = counted(x)

    def lost(end):
        scale = np.float32(end / 448)
        return np.mean((x - convert(x / scale, DType.F8E4M3FN).astype(np.float32) * scale) ** 2)

    ends = np.geomspace(1, counts.end("minmax"), 60)
    assert lost(counts.end("mse", format=FP8)) < 1.05 * min(map(lost, ends))
    assert counts.end("mse", format=FP8) > 1.3 * counts.end("mse")
    assert counts.end("entropy", format=FP8) > counts.end("entropy")
    for method in ("minmax", "percentile"):
        assert counts.end(method, format=FP8) == counts.end(method)


def test_what_is_not_finite_is_remembered():
    assert counted([1.0]).is_finite
    assert not counted([1.0, np.inf]).is_finite
    assert not counted([np.nan]).is_finite


def test_words_of_methods():
    assert Method.of("percentile:99.5") == Method("percentile", 99.5)
    for word in ("best", "percentile:", "percentile:101", "mse:3", "percentile:nan", None):
        with pytest.raises(UsageError, match="is not known"):
            Method.of(word)


def test_a_cache_there_and_back_and_one_of_tensorrt(tmp_path):
    path = tmp_path / "net.cache"
    assert read_cache(path, INT8) is None
    write_cache(path, "mse", {"x": 0.5, "a: b": 0.007874016}, INT8)
    assert path.read_text().splitlines()[:2] == ["miniinfer-1-mse", "x: 3f000000"]
    assert read_cache(path, INT8) == {"x": 0.5, "a: b": np.float32(0.007874016)}
    path.write_text("TRT-8601-EntropyCalibration2\ndata: 3c010a14\n(Unnamed Layer* 3) [Convolution]_output: 3d5b1f3a\nz: 0\n")
    for format in (INT8, FP8):
        assert read_cache(path, format)["z"] == 0.0
    found = read_cache(path, INT8)
    assert found["data"] == struct.unpack(">f", bytes.fromhex("3c010a14"))[0]
    assert list(found) == ["data", "(Unnamed Layer* 3) [Convolution]_output", "z"]


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (b"TRT-8601\n", "holds no scales"),
        (b"\xff\xfe\x00", "is not text"),
        (b"TRT\nx: hello\n", "line 2 is no scale: 'hello'"),
        (b"TRT\nx: 3f000000\n\n3f000000\n", "line 4 is no scale"),
        (b"TRT\nx: 3f00000000\n", "line 2 is no scale"),
        (b"TRT\nx: 7f800000\n", "line 2 has the scale inf"),
    ],
)
def test_what_is_no_cache_is_told_in_one_line(tmp_path, contents, told):
    path = tmp_path / "net.cache"
    path.write_bytes(contents)
    with pytest.raises(UsageError, match=told) as error:
        read_cache(path, INT8)
    assert str(error.value).startswith(f"{path}: ")


def inputs(**dims):
    graph = Graph("main")
    return [graph.add_input(name, TensorType(DType.F32, shape)) for name, shape in dims.items()]


def rows(sample_feeds, values, ranges=()):
    (sample,) = Samples([sample_feeds]).read(values)
    return [{name: len(a) for name, a in piece.items()} for piece in pieces(sample, values, ranges)]


def test_samples_are_cut_into_what_the_model_takes():
    batch = symbol("batch")
    open_input, fixed = inputs(x=(batch, 2)), inputs(x=(3, 2))
    many = np.zeros((2 * ROWS + 1, 2), np.float32)
    assert rows(many, open_input) == [{"x": ROWS}, {"x": ROWS}, {"x": 1}]
    assert rows(many, open_input, [DimensionRange("batch", 4, 16, 16)]) == [{"x": ROWS}, {"x": ROWS}]
    assert rows(np.zeros((6, 2)), fixed) == [{"x": 3}, {"x": 3}]
    assert rows(np.zeros((4, 2)), fixed) == [{"x": 4}]  # which the engine refuses
    two = inputs(x=(batch, 2), n=(symbol("seq"),))
    assert rows({"x": many, "n": np.zeros(len(many))}, two) == [{"x": len(many), "n": len(many)}]


def test_samples_come_from_files_in_their_order_and_from_iterables(tmp_path):
    np.savez(tmp_path / "b.npz", x=np.ones(2))
    np.save(tmp_path / "a.npy", np.zeros(2))
    (tmp_path / "notes.txt").write_text("no array")
    samples = Samples(tmp_path)
    assert samples.count == 2
    assert [float(s.feeds["x"][0]) for s in samples.read(inputs(x=(2,)))] == [0, 1]
    assert Samples(tmp_path / "a.npy").count == 1
    assert Samples(iter([])).count is None
    assert [s.name for s in Samples([np.zeros(2)]).read(inputs(x=(2,)))] == ["sample 0"]


def test_what_is_no_sample_is_told_with_its_place(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"garbage")
    cases = [
        (
            lambda: list(Samples(tmp_path).read(inputs(x=(2,)))),
            "a.npy: does not hold arrays: it holds Python objects, or is neither .npy nor .npz",
        ),
        (lambda: Samples(tmp_path / "none"), "cannot be read"),
        (lambda: Samples(3), "expected a folder or an iterable, got int"),
        (lambda: Samples({"x": 1}), "got dict"),
        (
            lambda: list(Samples([np.zeros(2)]).read(inputs(x=(2,), z=(2,)))),
            "sample 0 is one array, and the model has the inputs x, z",
        ),
        (lambda: list(Samples([{"q": np.zeros(2)}]).read(inputs(x=(2,)))), "sample 0: there is no input 'q'"),
    ]
    for ask, told in cases:
        with pytest.raises(UsageError, match=told):
            ask()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=r"holds no \.npy or \.npz file"):
        Samples(empty)


def test_a_cache_of_other_numbers_is_refused(tmp_path):
    for format, other in ((INT8, FP8), (FP8, INT8)):
        path = tmp_path / f"{format.name}.cache"
        write_cache(path, "mse", {"x": 0.5}, format)
        assert read_cache(path, format) == {"x": 0.5}
        with pytest.raises(UsageError, match=f"holds the scales of {format.name}, and {other.name} is asked for"):
            read_cache(path, other)


def accumulating(multiplied):
    """x [2, 16] and a state h, which becomes the Tanh of both; ``multiplied`` names what a product with weights reads."""
    sizes = {"x": 16, "h": 16, "n": 16, "y": 8}
    ends = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, size]) for name, size in sizes.items()}
    nodes = [("Add", ["x", "h"], ["s"]), ("Tanh", ["s"], ["n"]), ("MatMul", [multiplied, "w"], ["y"])]
    weights = numpy_helper.from_array(np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32), "w")
    made = [helper.make_node(*node, name=node[0]) for node in nodes]
    graph = helper.make_graph(made, "accumulating", [ends["x"], ends["h"]], [ends["y"], ends["n"]], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_what_becomes_a_state_is_seen_and_a_state_is_not():
    samples = [{"x": np.full((2, 16), 0.25, np.float32)}]
    for read, largest in (("n", np.tanh(0.25)), ("s", 0.25), ("x", 0.25)):
        options = BuildOptions(int8=True, calibrate=samples, calibration_method="minmax", state=("h:n",))
        done = build_plan(accumulating(read), None, options).quantized
        assert done.scales == {read: pytest.approx(largest / 127, rel=1e-5)}
    with pytest.raises(ModelError, match="node 'MatMul': 'h', which it reads, is a state"):
        build_plan(accumulating("h"), None, options)


def test_products_that_keep_f32_are_looked_for_beside_states():
    options = BuildOptions(int8=True, calibrate=[{"x": np.full((2, 16), 0.25, np.float32)}], keep_float=("auto",), state=("h:n",))
    found = find_float(accumulating("n"), options)
    assert [o.name for o in found.outputs] == ["y"] and found.nodes == ()
