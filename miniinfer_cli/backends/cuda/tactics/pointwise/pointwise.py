"""Pointwise operations and regions of them: each is one kernel, generated for its body."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.cuda.codegen.body import single
from miniinfer_cli.backends.cuda.codegen.expressions.binary import known_power
from miniinfer_cli.backends.cuda.codegen.kernel import Source, pointwise_launch, reads_rows
from miniinfer_cli.backends.cuda.codegen.pointwise import NotOneKernelError, launch_of, launched
from miniinfer_cli.backends.cuda.codegen.splitting import split, split_fold
from miniinfer_cli.backends.cuda.contract.site import Site, lowers, static_shape
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Operand, Rewrite, inputs, outputs
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.ir import Array, Graph, TensorType, dtype_of
from miniinfer_cli.ops.inference import infer_graph

_OPERATIONS = (
    "Abs", "Acos", "Acosh", "Add", "And", "Asin", "Asinh", "Atan", "Atanh", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr",
    "BitwiseXor", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu",
    "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
    "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Shrink",
    "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "SwiGLU", "Swish", "Tan", "Tanh",
    "ThresholdedRelu", "Xor",
)  # fmt: skip


@lowers(*_OPERATIONS)
def lower_node(site: Site) -> Lowered | Rewrite | None:
    """One node over operands that broadcast."""
    graph = split_fold(site.node, site.types)
    if graph is not None:
        return Rewrite(graph)
    return single_launch(site, [static_shape(t) if isinstance(t, TensorType) else None for t in site.types])


@reads_strided(*_OPERATIONS)
@reads_strided("FusedPointwise", domain="miniinfer")
def reads_operand(site: Site, number: int) -> bool:
    """Rows at multiples of 16 bytes."""
    return reads_rows(site.shape(number), site.strides(number), element_nbytes(site.dtype(number)))


def single_launch(site: Site, shapes: Sequence[tuple[int, ...] | None]) -> Lowered | None:
    """The node as one kernel, with its operands seen as of these ``shapes``, which broadcast onto the output's."""
    dtypes = [t.dtype if isinstance(t, TensorType) else None for t in site.types]
    known = _known(site)
    body = single(site.node, dtypes, site.out_dtype(), known)
    if body is None:
        return None
    present = [i for i, d in enumerate(dtypes) if d is not None and i not in known]
    sources = [Source(Operand.input(i), shapes[i] or (), site.strided[i] if site.strided else None) for i in present]
    launch = pointwise_launch(body, sources, outputs(0), site.out_shape(), site.target)
    operands = [TensorType(site.dtype(i), shapes[i]) for i in present]
    return launched(launch, operands, present, [site.output()])


def _known(site: Site) -> dict[int, Array]:
    """Operands worth a kernel of their own as literals: exponents for which there is something better than pow()."""
    if site.node.op != "Pow" or site.shape(1) != (1,) * len(site.shape(1)):
        return {}
    exponent = site.known(1)
    if exponent is None or len(site.shape(1)) > len(site.shape(0)) or known_power(np.asarray(exponent), site.dtype()) is None:
        return {}
    return {1: exponent.reshape(())}


@lowers("FusedPointwise", domain="miniinfer")
def lower_region(site: Site) -> Lowered | Rewrite | None:
    """A region as one kernel, or as several smaller regions where it is too much for one."""
    body = site.node.body
    assert body is not None
    types = infer_graph(body, site.types)
    smaller = split(body, types)
    if smaller is not None:
        return Rewrite(smaller)
    operands = list(inputs(*range(len(site.types))))
    body, tables = _with_tables(body, operands)
    if tables:
        types = infer_graph(body, [*site.types, *(TensorType(dtype_of(a), a.shape) for a in tables)])
    try:
        launch = launch_of(body, types, operands, outputs(*range(len(site.results))), site.target, site.strided)
    except NotOneKernelError:  # an operation without an expression, a plugin's: the body is lowered node by node
        return None
    present = [i for i, t in enumerate(site.types) if isinstance(t, TensorType)]
    lowered = launched(launch, [site.input(i) for i in present], present, [site.output(k) for k in range(len(site.results))])
    return Lowered(lowered.actions, tables=tables, in_place=lowered.in_place, tactic=lowered.tactic)


def _with_tables(body: Graph, operands: list[Operand]) -> tuple[Graph, tuple[Array, ...]]:
    """The body with its constants of several elements as inputs behind the others, and those constants."""
    if all(v.constant is None or v.constant.size == 1 for v in body.constants()):
        return body, ()
    made = body.copy()
    tables: list[Array] = []
    for value in [v for v in made.constants() if v.constant is not None and v.constant.size != 1]:
        assert value.constant is not None
        array = value.constant.array()
        operands.append(Operand.table(len(tables)))
        tables.append(array)
        made.replace_uses(value, made.add_input(value.name, value.tensor))
    return made, tuple(tables)
