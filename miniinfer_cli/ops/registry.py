"""The one register of what operations mean: shape rule, numpy reference, and how to call both.

An operation is two plain functions whose signatures *are* the operation's: inputs are positional parameters (an optional
one defaults to None, ``*xs`` takes any number), attributes are keyword-only parameters with ONNX's defaults:

    def infer_softmax(x: TensorType, *, axis: int = -1) -> TensorType: ...
    def softmax(x: Array, *, axis: int = -1) -> Array: ...
    SOFTMAX = define("Softmax", infer=infer_softmax, reference=softmax)

Several outputs come as a tuple. A function that declares one of these keyword-only parameters is given it as well:
``n_outputs`` (outputs the node has), ``graphs`` (its sub-graphs by attribute name), and ``run_graph(graph, inputs)``
(executes a sub-graph on values), ``for_each`` (see ``products``; None where no threads share the work) and ``limits`` (None: the
defaults) or, in a shape rule, ``infer_graph(graph, types)`` (infers one) and ``untyped`` (numbers of the inputs that are there,
but of no known type: a rule is given None for them as for one that is left out).
The meaning is that of the newest opset; ``onnx_import`` rewrites older forms.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from miniinfer_cli.errors import LimitExceeded, MiniinferError, ModelError
from miniinfer_cli.ir import DType, Graph, TensorType, Type, dtype_of
from miniinfer_cli.limits import Limits
from miniinfer_cli.ops.budget import Budget, check_time, current, result_nbytes
from miniinfer_cli.ops.declaration import CONTEXT, Declaration, declaration_of
from miniinfer_cli.ops.element_types import expect_dtype
from miniinfer_cli.ops.flops import Flops
from miniinfer_cli.ops.products import ForEach
from miniinfer_cli.ops.work import Inputs, Outputs, touched
from miniinfer_cli.wording import Wording

GIVE_MEANING = Wording(
    "give its meaning in a module, plugins=[MODULE], see docs/plugins.md",
    flags="give its meaning by --plugin MODULE, see docs/plugins.md",
)
_SMALL = 4096  # elements of an operand whose contents a shape rule may look at

ONNX = ""
OURS = "miniinfer"

RunGraph = Callable[[Graph, Sequence[Any]], tuple[Any, ...]]
InferGraph = Callable[[Graph, Sequence[Type | None]], tuple[Type | None, ...]]


@dataclass(frozen=True, eq=False)
class OpDef:
    """What one operation means. Instances are made by ``define`` only.

    ``symbolic``: the reference also works on object arrays of symbolic dimensions (used to follow shape arithmetic).
    ``pointwise``: each output element depends only on the input elements that broadcast onto it. ``pointwise_if``: whether it is
    so for operands of these types, where it is for some.
    ``random``: two calls with the same inputs may differ, so it is neither folded nor merged.
    ``expand``: builds the same meaning from more primitive operations, or None where there is nothing more primitive.
    It is called as ``expand(graph, node)``, inserts nodes before ``node`` and returns the replacement output values.
    ``shape_operands``: numbers of the inputs whose contents decide the shape of an output (the target of a Reshape ...).
    ``graphs`` and ``optional_graphs``: the names of its sub-graphs, those that must be there and those that may.
    ``check``: raises ModelError for attributes of a file's node that have the right types and must not be all the same.
    ``takes``: the element types of the first inputs, None for any, where the shape rule does not look at them itself.
    ``work``: the steps of the reference beyond what it reads and writes, see ``work``; None where there are none worth counting.
    ``view``: the output is the first input's bytes under another shape. ``heavy``: it does more than some instructions for each
    element that it reads or writes. ``control``: it chooses which of its sub-graphs run, and how often. ``tells_shape``: it
    reads nothing of its input but the shape. ``flops``: the operations of the products within it (``flops``), None where it holds
    none. ``moves``: its results are elements of its operands, and it reads no others of these.
    """

    name: str
    domain: str
    infer: Callable[..., Any]
    reference: Callable[..., Any]
    symbolic: bool = False
    pointwise: bool = False
    random: bool = False
    expand: Callable[..., Any] | None = None
    shape_operands: tuple[int, ...] = ()
    graphs: tuple[str, ...] = ()
    optional_graphs: tuple[str, ...] = ()
    check: Callable[[Mapping[str, Any]], None] | None = None
    work: Callable[[Inputs, Outputs, Mapping[str, Any]], int] | None = None
    takes: tuple[frozenset[DType] | None, ...] = ()
    view: bool = False
    heavy: bool = False
    control: bool = False
    tells_shape: bool = False
    flops: Flops | None = None
    moves: bool = False
    pointwise_if: Callable[[Sequence[Type | None]], bool] | None = None

    @cached_property
    def declaration(self) -> Declaration:
        """What a node of the operation may hold."""
        return declaration_of(self.name, self.infer, self.reference, self.graphs, self.optional_graphs)

    @cached_property
    def _infer_names(self) -> frozenset[str]:
        return _keyword_names(self.infer)

    @cached_property
    def _reference_names(self) -> frozenset[str]:
        return _keyword_names(self.reference)

    @property
    def attribute_names(self) -> frozenset[str]:
        """The attributes that the operation understands."""
        return (self._infer_names | self._reference_names).difference(CONTEXT)

    def infer_types(
        self,
        inputs: Sequence[Type | None],
        attrs: Mapping[str, Any],
        *,
        n_outputs: int,
        graphs: Mapping[str, Graph] | None = None,
        infer_graph: InferGraph | None = None,
        untyped: frozenset[int] = frozenset(),
    ) -> tuple[Type | None, ...]:
        """The types of the outputs. Raises ModelError when inputs and attributes do not go together."""
        self.declaration.check_operands(inputs, untyped)
        for allowed, operand in zip(self.takes, inputs, strict=False):
            if allowed is not None and isinstance(operand, TensorType):
                expect_dtype(self.name, operand, allowed)
        context = {"n_outputs": n_outputs, "graphs": graphs or {}, "infer_graph": infer_graph, "untyped": untyped}
        return self._call(self.infer, self._infer_names, inputs, attrs, context)

    def evaluate(
        self,
        inputs: Sequence[Any],
        attrs: Mapping[str, Any],
        *,
        n_outputs: int,
        graphs: Mapping[str, Graph] | None = None,
        run_graph: RunGraph | None = None,
        for_each: ForEach | None = None,
        limits: Limits | None = None,
    ) -> tuple[Any, ...]:
        """The outputs for numpy inputs, by the reference. numpy's scalars, which rank 0 tends to turn into, become arrays."""
        budget = current()
        if budget is not None and budget.allowance.memory_nbytes is not None and not graphs and not self.view:
            self._expect_results(budget, inputs, attrs, n_outputs)
        context = {"n_outputs": n_outputs, "graphs": graphs or {}, "run_graph": run_graph, "for_each": for_each, "limits": limits}
        try:
            results = self._call(self.reference, self._reference_names, inputs, attrs, context)
        except (ModelError, TypeError) as error:
            if not graphs and (error.__cause__ is not None or isinstance(error, TypeError)):
                self._told(inputs, attrs, n_outputs)  # says it better than numpy does, where it is the rule that is broken
            raise
        return tuple(np.asarray(r) if isinstance(r, np.generic) else r for r in results)

    def steps(self, inputs: Inputs, outputs: Outputs, attrs: Mapping[str, Any]) -> int:
        """About how many steps the reference takes, each about a nanosecond, for results of these types, of static shapes."""
        linear = sum(touched(x) for x in (*inputs, *outputs) if x is not None)
        return linear + (0 if self.work is None else int(self.work(inputs, outputs, attrs)))

    def _expect_results(self, budget: Budget, inputs: Sequence[Any], attrs: Mapping[str, Any], n_outputs: int) -> None:
        """Raises LimitExceeded when the results, as far as the shape rule tells their sizes, would take more than there is."""
        try:
            told = self._told(inputs, attrs, n_outputs)
        except LimitExceeded:
            raise
        except MiniinferError:
            return  # the reference tells what is wrong
        if told is None:
            return
        budget.expect(result_nbytes(told), f"results of {self.name}")

    def _told(self, inputs: Sequence[Any], attrs: Mapping[str, Any], n_outputs: int) -> tuple[Type | None, ...] | None:
        """What the shape rule tells of operands at hand; None where one has no type. Raises what the rule raises."""
        types = [_type_of(value) for value in inputs]
        untyped = frozenset(i for i, (t, v) in enumerate(zip(types, inputs, strict=True)) if t is None and v is not None)
        return None if untyped else self.infer_types(types, attrs, n_outputs=n_outputs)

    def _call(
        self,
        function: Callable[..., Any],
        names: frozenset[str],
        inputs: Sequence[Any],
        attrs: Mapping[str, Any],
        context: Mapping[str, Any],
    ) -> tuple[Any, ...]:
        check_time()
        given = {k: v for k, v in attrs.items() if k in names}
        given.update((k, v) for k, v in context.items() if k in names)
        try:
            result = function(*inputs, **given)
        except TypeError as error:
            refused = self._signature_error(function, inputs, given) or self._element_type_error(error)
            if refused is None:
                raise
            raise refused from error
        except (ArithmeticError, IndexError, ValueError) as error:  # numpy's, of operands that do not go together
            raise ModelError(
                f"{self.name} cannot take these operands and attributes: {_first_line(error)}",
                hint="look at the shapes and attributes of the node, and at the integers that it takes",
            ) from error
        return result if isinstance(result, tuple) else (result,)

    def _element_type_error(self, error: TypeError) -> ModelError | None:
        """What to say of numpy's TypeError, of operands whose element types a function of its does not take; else None."""
        if not type(error).__module__.startswith("numpy."):
            return None
        return ModelError(
            f"{self.name} cannot take operands of these element types: {_first_line(error)}",
            hint=f"put a Cast before the node, to a type that ONNX lists for {self.name}",
        )

    def _signature_error(
        self, function: Callable[..., Any], inputs: Sequence[Any], given: Mapping[str, Any]
    ) -> ModelError | None:
        try:
            inspect.signature(function).bind(*inputs, **given)
        except TypeError as error:
            return ModelError(f"{self.name} with {len(inputs)} inputs and attributes {sorted(given)}: {error}")
        return None


_REGISTRY: dict[tuple[str, str], OpDef] = {}


def define(
    name: str,
    *,
    infer: Callable[..., Any],
    reference: Callable[..., Any],
    domain: str = ONNX,
    symbolic: bool = False,
    pointwise: bool = False,
    random: bool = False,
    expand: Callable[..., Any] | None = None,
    shape_operands: tuple[int, ...] = (),
    graphs: tuple[str, ...] = (),
    optional_graphs: tuple[str, ...] = (),
    check: Callable[[Mapping[str, Any]], None] | None = None,
    work: Callable[[Inputs, Outputs, Mapping[str, Any]], int] | None = None,
    takes: tuple[frozenset[DType] | None, ...] = (),
    view: bool = False,
    heavy: bool = False,
    control: bool = False,
    tells_shape: bool = False,
    flops: Flops | None = None,
    moves: bool = False,
    pointwise_if: Callable[[Sequence[Type | None]], bool] | None = None,
) -> OpDef:
    """Registers an operation and returns its definition. Raises ValueError when it is registered already."""
    opdef = OpDef(
        name, domain, infer, reference, symbolic, pointwise, random, expand, shape_operands, graphs, optional_graphs, check, work,
        takes, view, heavy, control, tells_shape, flops, moves, pointwise_if,
    )  # fmt: skip
    if _REGISTRY.setdefault((domain, name), opdef) is not opdef:
        raise ValueError(f"operation {domain or 'ai.onnx'}::{name} is defined twice")
    return opdef


def find(domain: str, name: str) -> OpDef | None:
    """The definition of an operation, None when there is none."""
    return _REGISTRY.get((domain, name))


def lookup(domain: str, name: str) -> OpDef:
    """The definition of an operation. Raises ModelError when there is none."""
    opdef = find(domain, name)
    if opdef is None:
        raise ModelError(
            f"operation {domain or 'ai.onnx'}::{name} is not known",
            hint=GIVE_MEANING,
        )
    return opdef


def defined() -> tuple[OpDef, ...]:
    """Every definition, by domain and name."""
    return tuple(_REGISTRY[key] for key in sorted(_REGISTRY))


def _type_of(value: Any) -> Type | None:
    """The type of an operand, with the contents of a small one, which may decide the sizes of results."""
    if not isinstance(value, np.ndarray):
        return None
    try:
        return TensorType(dtype_of(value), value.shape, value if value.size <= _SMALL and value.dtype != object else None)
    except ValueError:  # an element type that ONNX lacks
        return None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _keyword_names(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(n for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY)
