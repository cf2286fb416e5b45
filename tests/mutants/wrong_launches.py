"""What a CUDA lowering gives, made wrong: a launch more behind its actions, or nodes more behind its rewrite."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Lowered, Operand, Rewrite
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.ir import DType, Graph, TensorType, Value, numpy_dtype
from miniinfer_cli.ir.dims import is_static

WAYS = ("scaled", "changed", "others")
"""The first output scaled by 1.01; one element of it changed; every other output scaled."""
MAY_NOT_APPLY = frozenset({"others"})
_FACTOR = 1.01
_TEXT = """
extern "C" __global__ void wrong({type}* y, i64 count) {{
  for (i64 i = mi_first(); i < count; i += mi_step()) {{ {type} v = y[i]; y[i] = {wrong}; }}
}}
"""


def change(way: str, site: Site, answer: Lowered | Rewrite, applied: Callable[[], None]) -> Lowered | Rewrite:
    """The answer with the result made wrong; ``applied`` is called where there are elements to change."""
    numbers = range(1, len(site.results)) if way == "others" else (0,)
    if isinstance(answer, Rewrite):
        if not any(n.op == site.node.op for n in answer.graph):  # what is lowered anew is made wrong then
            _change_graph(answer.graph, way, site, numbers, applied)
        return answer
    launches = [launch for n in numbers if (launch := _launch(way, site, answer, n)) is not None]
    for _ in launches:
        applied()
    return replace(answer, actions=(*answer.actions, *launches))


def _launch(way: str, site: Site, answer: Lowered, number: int) -> Launch[Operand] | None:
    kind = site.results[number]
    assert isinstance(kind, TensorType)
    bound = answer.bounds.get(number)
    shape = bound.shape if bound is not None else kind.shape
    if shape is None or not is_static(shape):
        return None
    count, first = math.prod(map(int, shape)), 0
    if count == 0:
        return None
    if way == "changed":
        first, count = (0 if bound is not None else count - 1), 1
    target = Operand.output(number, first * element_nbytes(kind.dtype))
    real = {DType.C64: DType.F32, DType.C128: DType.F64}.get(kind.dtype)
    count *= 2 if real is not None else 1
    kernel = Kernel("wrong", code=_text(way, real or kind.dtype))
    return Launch(kernel, (min(-(-count // 256), 64),), (256,), (target, np.int64(count)))


def _text(way: str, dtype: DType) -> str:
    if dtype not in (DType.F64, DType.F32, DType.F16, DType.BF16):
        bits = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}[element_nbytes(dtype)]
        return _TEXT.format(type=bits, wrong="v ^ 1")
    c = c_type(dtype)
    wrong = "widen(v) == 0 ? 1 : 0" if way == "changed" else f"widen(v) * {_FACTOR}"
    return _TEXT.format(type=c, wrong=f"narrow<{c}>((computed<{c}>)({wrong}))")


def _change_graph(graph: Graph, way: str, site: Site, numbers: Any, applied: Callable[[], None]) -> None:
    outputs = list(graph.outputs)
    for number in numbers:
        kind = site.results[number]
        if not isinstance(kind, TensorType) or not kind.is_static or math.prod(map(int, kind.shape or ())) == 0:
            continue
        outputs[number] = changed_value(graph, way, outputs[number], kind)
        applied()
    graph.set_outputs(outputs)


def changed_value(graph: Graph, way: str, value: Value, kind: TensorType) -> Value:
    """What ``value`` of this type becomes, by nodes more."""
    dtype, shape = numpy_dtype(kind.dtype), static_shape(kind)
    where: Any = np.ones(shape, np.bool_)
    if way == "changed":
        where = np.zeros(shape, np.bool_)
        where.reshape(-1)[-1] = True
    if kind.dtype is DType.BOOL:
        op, operand = "Xor", where
    elif kind.dtype.is_integer:
        op, operand = "BitwiseXor", where.astype(dtype)
    elif way == "changed":
        op, operand = "Add", (where * 77).astype(dtype)
    else:
        op, operand = "Mul", np.array(_FACTOR).astype(dtype)
    return graph.add(op, value, graph.add_constant(operand))
