"""Small models as files, and the command line run in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from miniinfer_cli.cli.main import main


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache folder for all tests of commands: what the CPU can do is measured once in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIINFER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def miniinfer(capsys) -> Callable[..., Outcome]:
    """``miniinfer("run", plan, ...)``: runs the command and gives its outcome."""

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in args])
        captured = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), captured.out, captured.err)

    return run


def mlp(hidden: int = 8) -> onnx.ModelProto:
    """x [batch, 4] -> Gemm, Relu, MatMul -> y [batch, 3]; the hidden node is called ``hidden``."""
    rng = np.random.default_rng(0)
    weights = {"w1": (4, hidden), "b1": (hidden,), "w2": (hidden, 3)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="hidden"),
            helper.make_node("MatMul", ["r", "w2"], ["y"], name="last"),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def model(tmp_path) -> Path:
    """The file of ``mlp()``."""
    path = tmp_path / "mlp.onnx"
    onnx.save(mlp(), path)
    return path


@pytest.fixture
def plan(model, miniinfer) -> Path:
    """The plan of ``mlp()``."""
    path = model.with_suffix(".plan")
    assert miniinfer("build", model, "-q").code == 0
    return path
