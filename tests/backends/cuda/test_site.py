"""What a site says of operands that may be absent."""

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import NULL, Operand
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ir import DType, Graph, TensorType


def test_absent_operands_are_null() -> None:
    f32 = TensorType(DType.F32, (2,))
    graph = Graph()
    x = graph.add_input("x", f32)
    node = graph.add_node("Example", (x, None, x), (graph.new_value("y"), graph.new_value("z")))
    site = Site(node, (f32, None, f32), (f32, f32), (None, None, None), Target())
    assert [site.operand(i) for i in range(4)] == [Operand.input(0), NULL, Operand.input(2), NULL]
    assert [site.result(i) for i in range(3)] == [Operand.output(0), Operand.output(1), NULL]
    assert [site.gives(i) for i in range(3)] == [True, True, False]
