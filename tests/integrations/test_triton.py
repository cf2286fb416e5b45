"""Triton's Python backend: the folder that ``miniinfer template`` writes, and its model, beside a stand-in of the backend."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import tritonclient
from google.protobuf import text_format

from engine_format import write_plan
from miniinfer_cli.cli.main import main
from miniinfer_cli.errors import DeviceError
from tests.emulation.engine import plan_of

NET = """graph main(x: f32[n,2], k: i64[n]) {
  t: f32[3] = const [0.5, 1.5, 2.5]
  g = Gather(t, k)
  a: i64[1] = const [-1]
  c = Unsqueeze(g, a)
  y = Mul(x, c)
  return y, k
}"""


def template(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["template", "triton", *map(str, arguments)])
    return ended.value.code or 0


def read_config(path: Path):
    """As Triton reads it: a text of its own protobuf."""
    source = Path(tritonclient.__path__[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", source)
    module = sys.modules.get("model_config_pb2")
    if module is None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["model_config_pb2"] = module
    return text_format.Parse(path.read_text(), module.ModelConfig()), module


@pytest.fixture
def plan(tmp_path):
    write_plan(plan_of(NET), tmp_path / "net.plan")
    return tmp_path / "net.plan"


class FakeBackend(ModuleType):
    """What Triton's stub gives a model."""

    class Tensor:
        def __init__(self, name, array):
            self.name, self.array = name, array

        def as_numpy(self):
            return self.array

    class InferenceResponse:
        def __init__(self, output_tensors=(), error=None):
            self.outputs = {t.name: t.array for t in output_tensors}
            self.error = error

    class TritonError:
        def __init__(self, message):
            self.message = message

    @staticmethod
    def get_input_tensor_by_name(request, name):
        return request.get(name)


@pytest.fixture
def backend(monkeypatch):
    module = FakeBackend("triton_python_backend_utils")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, "miniinfer_cli.integrations.triton_model", raising=False)
    yield module
    sys.modules.pop("miniinfer_cli.integrations.triton_model", None)


def opened(folder: Path, kind: str = "CPU"):
    """The model of a folder, as Triton initializes it."""
    config, _ = read_config(folder / "config.pbtxt")
    spec = importlib.util.spec_from_file_location("model", folder / "1" / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    parameters = {key: {"string_value": value.string_value} for key, value in config.parameters.items()}
    shown = {"max_batch_size": config.max_batch_size, "parameters": parameters}
    place = {"model_repository": str(folder), "model_version": "1"}
    model.initialize({**place, "model_config": json.dumps(shown), "model_instance_kind": kind, "model_instance_device_id": "0"})
    return model


def request(backend, rows, k):
    x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    return {"x": backend.Tensor("x", x), "k": backend.Tensor("k", np.full(rows, k))}


def test_the_folder_is_one_that_triton_reads(plan, tmp_path, capsys):
    assert template(plan, "-o", tmp_path / "models", "--max-batch", 16, "--max-delay", 1.5, "--instances", 2) == 0
    folder = tmp_path / "models" / "net"
    assert capsys.readouterr().out == f"{folder}: config.pbtxt, 1/model.py, 1/model.plan\n"
    config, module = read_config(folder / "config.pbtxt")
    assert (config.name, config.backend, config.max_batch_size) == ("net", "python", 16)
    assert [(i.name, i.data_type, list(i.dims)) for i in config.input] == [
        ("x", module.TYPE_FP32, [2]),
        ("k", module.TYPE_INT64, [1]),
    ]
    assert (list(config.input[1].reshape.shape), config.input[1].HasField("reshape")) == ([], True)
    assert [(o.name, o.data_type, list(o.dims)) for o in config.output] == [
        ("y", module.TYPE_FP32, [2]),
        ("k", module.TYPE_INT64, [1]),
    ]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, module.ModelInstanceGroup.KIND_AUTO)
    assert (folder / "1" / "model.plan").read_bytes() == plan.read_bytes()
    assert template(folder / "1" / "model.plan", "-o", tmp_path / "models", "--name", "net") == 0  # over itself
    assert (folder / "1" / "model.plan").read_bytes() == plan.read_bytes()


def test_each_request_of_a_batch_has_its_own_answer(plan, tmp_path, backend):
    template(plan, "-o", tmp_path, "--name", "m")
    model = opened(tmp_path / "m")
    given = [request(backend, 1, 0), request(backend, 2, 1), request(backend, 1, 7), request(backend, 3, 2)]
    given += [{"x": given[0]["x"]}, {**given[0], "x": backend.Tensor("x", np.ones((1, 5), np.float32))}]
    answers = model.execute(given)
    for place, factor in ((0, 0.5), (1, 1.5), (3, 2.5)):
        assert answers[place].error is None
        np.testing.assert_array_equal(answers[place].outputs["y"], given[place]["x"].array * np.float32(factor))
    assert "7" in answers[2].error.message
    assert "there is no input 'k'" in answers[4].error.message
    assert "input 'x'" in answers[5].error.message
    assert model.batcher.stats()["requests"]["result"] == 3
    model.finalize()


def test_an_instance_is_on_the_device_that_triton_gives_it(plan, tmp_path, backend):
    template(plan, "-o", tmp_path, "--name", "m")
    with pytest.raises(DeviceError):
        opened(tmp_path / "m", kind="GPU")


def test_a_plan_without_a_batch_is_run_request_by_request(tmp_path, backend):
    write_plan(
        plan_of("graph main(x: f32[2,n], s: str[m]) {\n  y = Neg(x)\n  t = Identity(s)\n  return y, t\n}"), tmp_path / "a.plan"
    )
    assert template(tmp_path / "a.plan", "-o", tmp_path) == 0
    config, module = read_config(tmp_path / "a" / "config.pbtxt")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert [(i.data_type, list(i.dims)) for i in config.input] == [(module.TYPE_FP32, [2, -1]), (module.TYPE_STRING, [-1])]
    model = opened(tmp_path / "a")
    (answer,) = model.execute(
        [{"x": backend.Tensor("x", np.ones((2, 3), np.float32)), "s": backend.Tensor("s", np.array([b"\xc3\xa4"], object))}]
    )
    assert answer.error is None and answer.outputs["y"].tolist() == [[-1] * 3] * 2
    assert answer.outputs["t"].tolist() == ["ä".encode()]
    model.finalize()


@pytest.mark.parametrize(
    ("text", "arguments", "told"),
    [
        (NET, ["--name", "a b"], "--name: 'a b' is no name of a model"),
        ("graph main(x: bf16[n]) {\n  y = Neg(x)\n  return y\n}", [], "has no arrays of bf16"),
        ("graph main(x: f32[n,n]) {\n  y = Neg(x)\n  return y\n}", ["--max-batch", "4"], "cannot be told"),
        (NET, ["--max-batch", "0"], "--max-batch"),
    ],
)
def test_what_cannot_be_is_told(tmp_path, capsys, text, arguments, told):
    write_plan(plan_of(text), tmp_path / "a.plan")
    code = template(tmp_path / "a.plan", "-o", tmp_path / "models", *arguments)
    error = capsys.readouterr().err
    assert code == 2 and told in error, error
    assert not (tmp_path / "models").exists()


def test_a_folder_that_cannot_be_made_is_told(plan, capsys):
    assert template(plan, "-o", plan) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_plan_that_is_none_is_told(tmp_path, capsys):
    assert template(tmp_path / "none.plan", "-o", tmp_path) == 4
    assert "no such file" in capsys.readouterr().err
