"""Small models as files, and the command line run in this process."""

import shutil
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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``mlp()`` and its plan, which no test changes."""
    folder = tmp_path_factory.mktemp("built")
    onnx.save(mlp(), folder / "mlp.onnx")
    with pytest.raises(SystemExit) as ended:
        main(["build", str(folder / "mlp.onnx"), "-q"])
    assert not ended.value.code
    return folder


@pytest.fixture
def model(built, tmp_path) -> Path:
    """The file of ``mlp()``."""
    return Path(shutil.copy(built / "mlp.onnx", tmp_path))


@pytest.fixture
def plan(built, model) -> Path:
    """The plan of ``mlp()``, beside its model."""
    return Path(shutil.copy(built / "mlp.plan", model.parent))
