"""A folder of tiny models, plans and inputs, in which command lines of trtexec run; what takes seconds in them is made up."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from miniinfer_cli.cli import measuring
from miniinfer_cli.measuring.metrics import Samples

_HELD = (
    "m.onnx",
    "m.plan",
    "fixed.onnx",
    "tokens.onnx",
    "tokens.plan",
    "colons.onnx",
    "x.bin",
    "x.npy",
    "ids.bin",
    "theirs.engine",
)


def renamed(model: onnx.ModelProto, name: str, batch: int | str) -> onnx.ModelProto:
    """The model with its input ``x`` under another name, of another batch."""
    graph = model.graph
    shape = graph.input[0].type.tensor_type.shape
    shape.dim[0].Clear()
    setattr(shape.dim[0], "dim_value" if isinstance(batch, int) else "dim_param", batch)
    graph.input[0].name = graph.node[0].input[0] = name
    graph.output[0].type.tensor_type.shape.dim[0].CopyFrom(shape.dim[0])
    return model


def tokens() -> onnx.ModelProto:
    """ids, mask: i64 [batch, length] -> their product in f32."""
    sizes = ["batch", "length"]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["ids", "mask"], ["p"], name="product"),
            helper.make_node("Cast", ["p"], ["f"], name="floats", to=TensorProto.FLOAT),
            helper.make_node("Softmax", ["f"], ["y"], name="softmax"),
        ],
        "tokens",
        [helper.make_tensor_value_info(name, TensorProto.INT64, sizes) for name in ("ids", "mask")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, sizes)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def kept(built, tmp_path_factory) -> Path:
    """The folder, which no test changes."""
    from miniinfer_cli.builder.building import build_plan
    from miniinfer_cli.builder.options import BuildOptions

    folder = tmp_path_factory.mktemp("trtexec")
    shutil.copy(built / "mlp.onnx", folder / "m.onnx")
    shutil.copy(built / "mlp.plan", folder / "m.plan")
    mlp = (built / "mlp.onnx").read_bytes()
    onnx.save(renamed(onnx.load_from_string(mlp), "x", 2), folder / "fixed.onnx")
    onnx.save(renamed(onnx.load_from_string(mlp), "input:0", "batch"), folder / "colons.onnx")
    onnx.save(tokens(), folder / "tokens.onnx")
    build_plan(folder / "tokens.onnx", folder / "tokens.plan", BuildOptions())
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    x.tofile(folder / "x.bin")
    np.ones((2, 4), np.int64).tofile(folder / "ids.bin")
    np.save(folder / "x.npy", x)
    (folder / "theirs.engine").write_bytes(b"ftrt" + bytes(60))
    return folder


@pytest.fixture
def folder(kept, tmp_path, monkeypatch) -> Path:
    """A copy of the folder, which is the current one."""
    for name in _HELD:
        shutil.copy(kept / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made_up(monkeypatch) -> list[int]:
    """Nothing is measured: as many inferences as are asked for took times that are made up. Gives how many streams each time."""
    streams_of: list[int] = []

    def measure(engines, arrays, schedule, *, streams=1, progress):
        with engines[0].create_context() as context:
            context.run_arrays(list(arrays))
        streams_of.append(streams)
        progress("warm-up", 0)
        progress("inferences", schedule.iterations)
        count = schedule.iterations * streams
        times = tuple(1 + n % 7 / 16 for n in range(count))
        starts = tuple(float(2 * n) for n in range(count))
        samples = Samples(times, tuple(t + 0.25 for t in times), count / 500, streams, started_ms=starts)
        return samples, (samples,)

    monkeypatch.setattr(measuring, "measure_together", measure)
    return streams_of
