"""Plans of sessions in the cache: built once, by the digest of the model, and taken only where they can be trusted."""

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper

from miniinfer_cli import ort
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ops import registry
from miniinfer_cli.ort import plans
from miniinfer_cli.ort.plans import Wanted, plan_of
from tests.ort.models import W, model_of, product, value, with_data_beside

X = np.ones((2, 4), np.float32)


@pytest.fixture
def builds(monkeypatch):
    """How many plans were built."""
    made = []
    build = plans._built
    monkeypatch.setattr(plans, "_built", lambda *args: made.append(1) or build(*args))
    return made


def y_of(model) -> np.ndarray:
    return ort.InferenceSession(model).run(["y"], {"x": X})[0]


def files(cache) -> list[str]:
    return sorted(p.name for p in (cache / "plans").iterdir())


def test_a_model_is_built_once(cache, builds):
    for _ in range(3):
        np.testing.assert_allclose(y_of(product()), X @ W, rtol=1e-6)
    assert len(builds) == len(files(cache)) == 1
    assert (cache / "plans").stat().st_mode & 0o077 == 0


def test_another_model_and_other_options_have_plans_of_their_own(cache, builds):
    y_of(product())
    np.testing.assert_allclose(y_of(product(W + 1)), X @ (W + 1), rtol=1e-6)
    plan_of(Wanted(product(), opt_level=0))
    plan_of(Wanted(product(), free_dimensions=(("n", 2),)))
    assert len(builds) == len(files(cache)) == 4


def test_a_path_and_its_bytes_share_a_plan(tmp_path, builds):
    path = tmp_path / "m.onnx"
    path.write_bytes(product())
    y_of(str(path))
    y_of(path)
    y_of(product())
    assert len(builds) == 1


def test_a_damaged_plan_is_built_again(cache, builds):
    y_of(product())
    (name,) = files(cache)
    path = cache / "plans" / name
    whole = path.read_bytes()
    for contents in (b"", whole[: len(whole) // 2], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        path.write_bytes(contents)
        np.testing.assert_allclose(y_of(product()), X @ W, rtol=1e-6)
    assert len(builds) == 4


def test_a_plan_under_another_name_is_not_taken(cache, builds):
    y_of(product())
    (one,) = files(cache)
    y_of(product(W + 1))
    (other,) = set(files(cache)) - {one}
    (cache / "plans" / one).rename(cache / "plans" / other)
    np.testing.assert_allclose(y_of(product(W + 1)), X @ (W + 1), rtol=1e-6)
    assert len(builds) == 3


def test_what_everybody_may_write_is_not_taken(cache, builds):
    y_of(product())
    (name,) = files(cache)
    (cache / "plans" / name).chmod(0o666)
    y_of(product())
    assert len(builds) == 2
    (cache / "plans").chmod(0o777)
    y_of(product())
    y_of(product())
    assert len(builds) == 4


def test_data_beside_the_model_counts(tmp_path, builds):
    path = with_data_beside(tmp_path)
    np.testing.assert_allclose(y_of(path), X @ W, rtol=1e-6)
    np.testing.assert_allclose(y_of(path), X @ W, rtol=1e-6)
    assert len(builds) == 1
    (tmp_path / "weights.bin").write_bytes((W + 1).tobytes())
    np.testing.assert_allclose(y_of(path), X @ (W + 1), rtol=1e-6)
    np.testing.assert_allclose(y_of(path), X @ (W + 1), rtol=1e-6)
    assert len(builds) == 2


def test_what_was_not_used_for_longest_goes(cache, monkeypatch):
    monkeypatch.setenv("MINIINFER_PLAN_CACHE_MIB", "1")
    large = [np.full((4, 80_000), n, np.float32) for n in range(3)]  # more than a MiB each
    for w in large:
        assert y_of(product(w))[0, 0] == 4 * w[0, 0]
    assert len(files(cache)) <= 1


def test_without_a_cache_it_is_built_each_time(cache, builds, monkeypatch):
    monkeypatch.setenv("MINIINFER_PLAN_CACHE_MIB", "0")
    y_of(product())
    y_of(product())
    monkeypatch.setenv("MINIINFER_CACHE", "")
    y_of(product())
    assert len(builds) == 3
    assert not cache.exists()
    monkeypatch.setenv("MINIINFER_CACHE", str(cache))
    monkeypatch.setenv("MINIINFER_PLAN_CACHE_MIB", "-1")
    with pytest.raises(UsageError, match="MINIINFER_PLAN_CACHE_MIB"):
        y_of(product())


def test_a_model_that_changes_while_it_is_built_is_not_kept(cache, tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    path.write_bytes(product())
    build = plans._built

    def slow(*args):
        made = build(*args)
        path.write_bytes(product(W + 1))
        return made

    monkeypatch.setattr(plans, "_built", slow)
    y_of(path)
    assert not cache.exists() or files(cache) == []


def test_plugins_are_imported_for_kept_plans_too(tmp_path, builds, monkeypatch):
    (tmp_path / "ort_plugin_of_a_test.py").write_text(
        "import numpy as np\nfrom miniinfer_cli.ops.registry import define\n"
        "define('Twice', domain='ort.test', infer=lambda x: x, reference=lambda x: x * 2)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MINIINFER_ORT_PLUGINS", "ort_plugin_of_a_test")
    nodes = [helper.make_node("Twice", ["x"], ["y"], domain="ort.test")]
    ends = [value(n, TensorProto.FLOAT, [2]) for n in "xy"]
    model = model_of(nodes, ends[:1], ends[1:], opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ort.test", 1)])
    for _ in range(2):
        assert ort.InferenceSession(model).run(None, {"x": np.ones(2, np.float32)})[0].tolist() == [2, 2]
        monkeypatch.delitem(registry._REGISTRY, ("ort.test", "Twice"))
        monkeypatch.delitem(sys.modules, "ort_plugin_of_a_test")
    assert len(builds) == 1
    monkeypatch.setenv("MINIINFER_ORT_PLUGINS", "no_such_plugin_of_a_test")
    with pytest.raises(ort.capi.onnxruntime_pybind11_state.InvalidArgument, match="no_such_plugin"):
        ort.InferenceSession(model)
