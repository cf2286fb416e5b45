"""SessionOptions and RunOptions: the attributes of onnxruntime's, with its defaults, and refusals that say the way out."""

import onnxruntime
import pytest

from miniinfer_cli import ort
from tests.ort.models import product

CAPI = ort.capi.onnxruntime_pybind11_state


def plain(value):
    return getattr(value, "name", value)


@pytest.mark.parametrize("kind", ["SessionOptions", "RunOptions"])
def test_attributes_have_the_defaults_of_onnxruntime(kind):
    ours, theirs = getattr(ort, kind)(), getattr(onnxruntime, kind)()
    names = [n for n in dir(theirs) if not n.startswith("_") and not callable(getattr(theirs, n))]
    assert names
    for name in names:
        assert plain(getattr(ours, name)) == plain(getattr(theirs, name)), name
        setattr(ours, name, getattr(ours, name))


@pytest.mark.parametrize("kind", ["GraphOptimizationLevel", "ExecutionMode", "OrtMemType", "OrtAllocatorType"])
def test_words_have_the_numbers_of_onnxruntime(kind):
    ours, theirs = getattr(ort, kind), getattr(onnxruntime, kind)
    assert {n: m.value for n, m in ours.__members__.items()} == {n: m.value for n, m in theirs.__members__.items()}


def test_other_attributes_and_kinds_are_refused():
    options = ort.SessionOptions()
    with pytest.raises(AttributeError, match="intra_threads"):
        options.intra_threads = 3
    with pytest.raises(TypeError, match="intra_op_num_threads: expected int"):
        options.intra_op_num_threads = "3"
    with pytest.raises(TypeError, match="graph_optimization_level"):
        options.graph_optimization_level = 99


@pytest.mark.parametrize(("options", "end"), [(ort.SessionOptions(), "session_config"), (ort.RunOptions(), "run_config")])
def test_entries_are_kept(options, end):
    getattr(options, f"add_{end}_entry")("a", "b")
    assert getattr(options, f"get_{end}_entry")("a") == "b"
    with pytest.raises(RuntimeError, match="'c'"):
        getattr(options, f"get_{end}_entry")("c")
    with pytest.raises(TypeError, match="text"):
        getattr(options, f"add_{end}_entry")("a", 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda o: o.register_custom_ops_library("a.so"),
        lambda o: o.add_initializer("a", None),
        lambda o: o.add_external_initializers(["a"], [None]),
        lambda o: o.add_free_dimension_override_by_denotation("DATA_BATCH", 1),
        lambda o: ort.RunOptions().add_active_adapter(None),
    ],
)
def test_what_cannot_be_done_says_the_way_out(call):
    with pytest.raises(CAPI.NotImplemented, match="hint: "):
        call(ort.SessionOptions())


def test_a_session_refuses_what_it_cannot_heed():
    options = ort.SessionOptions()
    options.optimized_model_filepath = "a.onnx"
    with pytest.raises(CAPI.NotImplemented, match=r"miniinfer_cli\.build\(model, path\)"):
        ort.InferenceSession(product(), options)
    options.optimized_model_filepath, options.intra_op_num_threads = "", -1
    with pytest.raises(CAPI.InvalidArgument, match="intra_op_num_threads"):
        ort.InferenceSession(product(), options)
    with pytest.raises(TypeError, match="sess_options"):
        ort.InferenceSession(product(), {})


def test_providers_of_the_options():
    options = ort.SessionOptions()
    assert not options.has_providers()
    options.add_provider("CPUExecutionProvider", {"a": "b"})
    assert options.has_providers()
    assert ort.InferenceSession(product(), options).get_provider_options() == {"CPUExecutionProvider": {"a": "b"}}
