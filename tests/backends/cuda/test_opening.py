"""Opening a model on a GPU: for which models libraries are loaded ahead, and that nothing is begun without a GPU."""

from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver import device, library_loading
from miniinfer_cli.backends.cuda.models import opening
from miniinfer_cli.backends.cuda.models.opening import open_model
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.errors import DeviceError
from miniinfer_cli.ir import DType, Graph, TensorType
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from tests.graph_text import typed_graph

LIGHT = "graph main(x: f32[4,8]) {\n  y = Relu(x)\n  z = Softmax(y)\n  return z\n}"
HEAVY = "graph main(x: f32[4,8], w: f32[8,6], b: f32[6]) {\n  y = MatMul(x, w)\n  z = Add(y, b)\n  return z\n}"


def fused() -> Graph:
    graph = typed_graph(HEAVY)
    assert fuse_matmul(graph) == 1
    return graph


def branching() -> Graph:
    graph = Graph()
    condition = graph.add_input("c", TensorType(DType.BOOL, ()))
    branches = {"then_branch": typed_graph(LIGHT), "else_branch": typed_graph(HEAVY)}
    y = graph.new_value("y")
    graph.add_node("If", [condition], [y], graphs=branches)
    graph.set_outputs([y])
    return graph


@pytest.mark.parametrize(
    ("graph", "heavy"),
    [(typed_graph(LIGHT), False), (typed_graph(HEAVY), True), (fused(), True), (branching(), True)],
    ids=["light", "product", "region", "branch"],
)
def test_libraries_are_loaded_ahead_for_what_computes_much(monkeypatch: pytest.MonkeyPatch, graph: Graph, heavy: bool) -> None:
    begun: list[tuple[str, ...]] = []
    waited: list[int] = []

    class Ahead:
        def __init__(self, names: tuple[str, ...]) -> None:
            begun.append(names)

        def wait(self) -> None:
            waited.append(1)

    def refuse(ordinal: int) -> Any:
        raise DeviceError("it is gone")

    monkeypatch.setattr(opening, "expect_gpu", lambda ordinal: None)
    monkeypatch.setattr(library_loading, "LoadingAhead", Ahead)
    monkeypatch.setattr(device, "open_device", refuse)
    with pytest.raises(DeviceError, match="it is gone"):
        open_model(graph, 0, DeviceOptions(), tf32=False)
    assert begun == [("cublasLt", "cudnn") if heavy else ()]
    assert waited == [1]  # nothing goes on behind the error


def test_without_a_gpu_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ordinal: int) -> Any:
        raise DeviceError(f"no GPU {ordinal}")

    monkeypatch.setattr(opening, "expect_gpu", refuse)
    monkeypatch.setattr(library_loading, "LoadingAhead", lambda names: pytest.fail("libraries were begun"))
    with pytest.raises(DeviceError, match="no GPU 3"):
        open_model(typed_graph(HEAVY), 3, DeviceOptions(), tf32=False)
