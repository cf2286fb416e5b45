"""InferenceSession beside onnxruntime's own: the same answers, and errors of the same names."""

import json
import threading
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from miniinfer_cli import ort
from tests.ort.models import W, model_of, of_many_kinds, product, value, with_default

X = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 4)
CPU = ["CPUExecutionProvider"]


def both(model: bytes):
    return [package.InferenceSession(model, providers=CPU) for package in (ort, onnxruntime)]


def described(args) -> list:
    return [(a.name, a.type, list(a.shape)) for a in args]


def outcome(call):
    """What a call gives: the type of its error, by name."""
    try:
        call()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def test_runs_give_the_same():
    ours, theirs = both(product())
    for names in (None, [], ["z"], ["z", "y", "z"]):
        for a, b in zip(ours.run(names, {"x": X}), theirs.run(names, {"x": X}), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("model", [product, with_default, of_many_kinds])
def test_tells_of_a_model_what_onnxruntime_tells(model):
    ours, theirs = both(model())
    for of in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        assert described(getattr(ours, of)()) == described(getattr(theirs, of)())
    said = ("producer_name", "graph_name", "domain", "description", "graph_description", "version", "custom_metadata_map")
    for name in said:
        assert getattr(ours.get_modelmeta(), name) == getattr(theirs.get_modelmeta(), name)
    assert ours.get_providers() == theirs.get_providers() == CPU
    assert ours.get_provider_options() == theirs.get_provider_options()


def test_a_session_from_the_cache_tells_the_same():
    first, second = ort.InferenceSession(of_many_kinds()), ort.InferenceSession(of_many_kinds())
    assert first.get_outputs() == second.get_outputs() != []
    assert first.get_modelmeta() == second.get_modelmeta()


@pytest.mark.parametrize(
    "feed",
    [
        {},
        {"zz": X},
        {"x": X, "zz": X},
        {"x": X.astype(np.float64)},
        {"x": X[0]},
        {"x": np.zeros((2, 5), np.float32)},
        {"x": np.array([["a"]])},
        {"x": X.tolist()},
        {"x": np.asfortranarray(X)},
    ],
)
def test_refuses_what_onnxruntime_refuses(feed):
    ours, theirs = both(product())
    assert outcome(lambda: ours.run(None, feed)) == outcome(lambda: theirs.run(None, feed))


def test_refuses_outputs_that_are_not_there():
    ours, _ = both(product())
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match=r"Invalid output name: zz\n  hint: .*y, z"):
        ours.run(["zz"], {"x": X})
    with pytest.raises(TypeError, match=r"give \['y'\]"):
        ours.run("y", {"x": X})
    with pytest.raises(TypeError, match="input_feed"):
        ours.run(None, [X])


def test_refuses_models_as_onnxruntime_does(tmp_path):
    from onnx import TensorProto, helper

    inputs, outputs = [value("x", TensorProto.FLOAT, [2])], [value("y", TensorProto.FLOAT, None)]
    unknown = model_of([helper.make_node("Foo", ["x"], ["y"])], inputs, outputs)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"hello")
    for model in ("nowhere.onnx", str(broken), b"abc", unknown, 5):
        ours, theirs = (outcome(lambda: p.InferenceSession(model, providers=CPU)) for p in (ort, onnxruntime))  # noqa: B023
        assert ours == theirs != "nothing"
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidProtobuf, match="own format"):
        ort.InferenceSession(b"\x00\x00\x00\x00ORTM....")


def test_a_fault_of_a_run_names_the_way_out():
    session = ort.InferenceSession(product())
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument) as caught:
        session.run(None, {"x": X[0]})
    told = str(caught.value)
    assert told.startswith("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : input 'x': got f32[4] of rank 1")
    assert told.endswith("hint: session.get_inputs() tells the inputs with their types and sizes")


def test_an_initializer_may_be_given():
    for session in both(with_default()):
        x = np.array([1, 2], np.float32)
        assert session.run(None, {"x": x})[0].tolist() == [11, 22]
        assert session.run(None, {"x": x, "c": x})[0].tolist() == [2, 4]
        assert session.run(None, {"x": x})[0].tolist() == [11, 22]


def test_inputs_may_differ_in_a_size_that_the_model_has_one_name_for():
    from onnx import TensorProto, helper

    inputs = [value(n, TensorProto.FLOAT, ["n", 2]) for n in "ab"]
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], axis=0)]
    model = model_of(nodes, inputs, [value("y", TensorProto.FLOAT, ["m", 2])])
    a, b = np.ones((2, 2), np.float32), np.zeros((3, 2), np.float32)
    for session in both(model):
        for feed in ({"a": a, "b": a}, {"a": a, "b": b}, {"a": b, "b": a}, {"a": b, "b": b}):
            (y,) = session.run(None, feed)
            np.testing.assert_array_equal(y, np.concatenate([feed["a"], feed["b"]]))


def test_run_async_calls_back():
    session = ort.InferenceSession(product())
    calls, ended = [], threading.Event()

    def callback(results, data, error):
        calls.append((len(results), data, error))
        ended.set()

    for feed in ({"x": X}, {"x": X[0]}):
        session.run_async(["y"], feed, callback, "mine")
        assert ended.wait(30)
        ended.clear()
    assert calls[0] == (1, "mine", "")
    assert calls[1][:2] == (0, "mine")
    assert "of rank 1" in calls[1][2]


def test_threads_run_side_by_side():
    session = ort.InferenceSession(product())
    wrong = []

    def work(number):
        for _ in range(20):
            x = np.full((3, 4), number, np.float32)
            (y,) = session.run(["y"], {"x": x})
            if not np.allclose(y, x @ W, atol=1e-5):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_profiling_writes_nodes_and_runs(tmp_path):
    options = ort.SessionOptions()
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "p")
    session = ort.InferenceSession(product(), options)
    assert session.get_profiling_start_time_ns() > 0
    session.run(None, {"x": X})
    path = session.end_profiling()
    assert Path(path).parent == tmp_path
    events = json.loads(Path(path).read_text())
    assert {e["name"] for e in events if e["cat"] == "Session"} == {"session_initialization", "model_run"}
    nodes = [e for e in events if e["cat"] == "Node"]
    assert [e["args"]["op_name"] for e in nodes] == ["MatMul", "ArgMax"]
    assert all(e["ph"] == "X" and e["dur"] >= 0 and e["name"].endswith("_kernel_time") for e in nodes)
    assert ort.InferenceSession(product()).end_profiling() == ""


def test_options_bear_on_the_engine():
    options = ort.SessionOptions()
    options.intra_op_num_threads = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(product(), options)
    assert session._opened.engine.plan.report.options["opt_level"] == 0
    assert session._opened.engine.model.facts()["threads"] == 3
    assert session.get_session_options() is options


def test_free_dimensions_are_fixed():
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("n", 2)
    session = ort.InferenceSession(product(), options)
    assert session.get_inputs()[0].shape == [2, 4]
    session.run(None, {"x": X})
    assert outcome(lambda: session.run(None, {"x": X[:1]})) == "InvalidArgument"


def test_terminate_ends_a_run():
    options = ort.RunOptions()
    options.terminate = True
    session = ort.InferenceSession(product())
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.Fail, match="terminate"):
        session.run(None, {"x": X}, options)


def test_providers_may_be_changed():
    session = ort.InferenceSession(product())
    with pytest.warns(UserWarning, match="TensorrtExecutionProvider"):
        session.set_providers(["TensorrtExecutionProvider", "CPUExecutionProvider"])
    assert session.get_providers() == CPU
    assert session.run(["z"], {"x": X})[0].shape == (2, 1)


def test_what_a_session_lacks_is_told():
    session = ort.InferenceSession(product())
    with pytest.raises(AttributeError, match=r"no InferenceSession.run_with_ortvaluevector\n  hint: take run_"):
        session.run_with_ortvaluevector  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        session.nothing  # noqa: B018
