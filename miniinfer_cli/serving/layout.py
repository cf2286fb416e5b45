"""Where the batch stands in a plan's inputs and outputs, and how a request lies in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from engine_format import DimensionRange, Plan
from miniinfer_cli.backends.interface import LoadedModel
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph, Node, TensorType, symbol
from miniinfer_cli.ir.dims import Dim, bind, evaluate, names_in, plain_name
from miniinfer_cli.ops import lookup
from miniinfer_cli.runtime.bindings import Binding, defaults_of
from miniinfer_cli.runtime.context import Context
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.wording import Wording

_ROWS = "rows"  # what the batch of a plan with fixed sizes is called
_FORMS = 1024  # sets of shapes that were checked and are remembered


class BatchedEngine(Protocol):
    """The engine, as a batcher sees it; see ``runtime.engine.Engine``."""

    plan: Plan
    device: str
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    ranges: dict[str, DimensionRange]

    @property
    def graph(self) -> Graph:
        """See Engine."""

    @property
    def host_inputs(self) -> frozenset[str]:
        """See Engine."""

    @property
    def model(self) -> LoadedModel:
        """See Engine."""

    def check_for(
        self, bindings: tuple[Binding, ...], ranges: Mapping[str, DimensionRange], inputs: Mapping[str, Any]
    ) -> list[Any]:
        """See Engine."""

    def create_context(self) -> Context:
        """See Engine."""

    def beside(self, device: str) -> Engine:
        """See Engine."""


@dataclass(frozen=True, slots=True)
class Form:
    """What the shapes of a request say. ``rows``: its share of a batch.

    ``bucket``: the shapes that its inputs have in a batch, with 0 in the place of the rows: requests that agree in it may share
    one. ``padded``: some dimension is larger there than in the request. ``cuts``: what of each output is the request's own, where
    that is not all; the batch's axis is left whole.
    """

    rows: int
    bucket: tuple[tuple[int, ...], ...]
    padded: bool = False
    cuts: tuple[tuple[slice, ...] | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """The batch of a plan. ``name``: its dimension. ``fixed``: its one size; None where there are others.

    ``inputs`` are those without a default, which requests give, with the batch as a dimension of that name; ``axes`` is where it
    stands in each, ``output_axes`` in each output. ``defaults``: the other inputs. ``pad``: ascending sizes by dimension.
    """

    name: str
    fixed: int | None
    inputs: tuple[Binding, ...]
    axes: tuple[int, ...]
    outputs: tuple[Binding, ...]
    output_axes: tuple[int, ...]
    defaults: Mapping[str, Any]
    ranges: Mapping[str, DimensionRange]
    pad: Mapping[str, tuple[int, ...]]
    draws: bool
    """True where the plan draws random numbers."""
    dtypes: tuple[tuple[str, Any], ...]
    """Name and numpy's type of each input; None in the place of objects, whose contents have to be looked at."""
    alone: bool = False
    """Each request is a batch of its own: there are no axes, and it counts as one row."""
    _forms: dict[tuple[tuple[int, ...], ...], Form] = field(default_factory=dict)

    def read(self, engine: BatchedEngine, inputs: Mapping[str, Any], most: int) -> tuple[list[Any], Form]:
        """A request's arrays in the order of ``inputs``, on the host, and its form. Raises UsageError for what does not fit.

        ``most``: rows that it may have.
        """
        shapes: list[tuple[int, ...]] = []
        arrays: list[Any] = []
        if type(inputs) is dict and len(inputs) == len(self.inputs):
            for name, dtype in self.dtypes:
                array = inputs.get(name)
                if type(array) is not np.ndarray or array.dtype is not dtype:
                    break
                arrays.append(array)
                shapes.append(array.shape)
            else:
                known = self._forms.get(tuple(shapes))
                if known is not None:
                    return arrays, known
        arrays = self._checked(engine, inputs)
        shapes = [a.shape for a in arrays]
        form = self._form(shapes, most)
        if len(self._forms) < _FORMS:
            self._forms[tuple(shapes)] = form
        return arrays, form

    def _checked(self, engine: BatchedEngine, inputs: Mapping[str, Any]) -> list[Any]:
        given = [n for n in inputs if n in self.defaults] if isinstance(inputs, Mapping) else []
        if given:
            raise UsageError(
                f"input {given[0]!r} has a default, and is the same for all requests of a batch",
                hint="leave it out; to give it, run the engine without a Batcher, or build the plan without overridable inputs",
            )
        arrays = engine.check_for(self.inputs, self.ranges, inputs)
        return [a if isinstance(a, np.ndarray) else engine.model.fetch(a) for a in arrays]

    def _form(self, shapes: Sequence[tuple[int, ...]], most: int) -> Form:
        if self.alone:
            return Form(1, tuple(shapes))
        rows = shapes[0][self.axes[0]]
        first = self.inputs[0].name
        if rows < 1:
            raise UsageError(f"input {first!r}: a request of no rows", hint=f"axis {self.axes[0]} is the batch; give 1 to {most}")
        if rows > most:
            raise UsageError(
                f"input {first!r}: a request of {rows} rows, and a batch has {most} at most",
                hint=Wording(
                    "give the rows in several requests, or make the Batcher with a larger max_batch",
                    flags="give the rows in several requests (profile: a smaller --batch), or a larger --max-batch",
                ),
            )
        sizes: dict[str, int] = {}
        for binding, shape in zip(self.inputs, shapes, strict=True):
            bind(_dims(binding), shape, sizes)
        in_batch = {**sizes, **{n: self._padded(n, sizes[n]) for n in self.pad if n in sizes}}
        bucket = []
        for binding, shape, axis in zip(self.inputs, shapes, self.axes, strict=True):
            larger = [n if (s := evaluate(d, in_batch)) is None else s for d, n in zip(_dims(binding), shape, strict=True)]
            larger[axis] = 0
            bucket.append(tuple(larger))
        if in_batch == sizes:
            return Form(rows, tuple(bucket))
        grown = {n for n in sizes if in_batch[n] != sizes[n]}
        return Form(rows, tuple(bucket), True, tuple(_cut(b, grown, sizes) for b in self.outputs))

    def _padded(self, name: str, size: int) -> int:
        sizes = self.pad[name]
        larger = next((s for s in sizes if s >= size), None)
        if larger is None:
            raise UsageError(
                f"the dimension {name} is {size}, and {sizes[-1]} is the largest size that pad gives it",
                hint=f"give less, or make the Batcher with a larger size: pad={{{name!r}: [..., {size}]}}",
            )
        return larger


def layout_alone(engine: BatchedEngine) -> Layout:
    """The layout of a plan whose requests are computed one by one. Raises UsageError where they share a state."""
    _expect_stateless(engine)
    inputs = tuple(b for b in engine.inputs if b.default is None)
    return Layout(
        "",
        1,
        inputs,
        (),
        engine.outputs,
        (),
        defaults_of(engine.inputs),
        engine.ranges,
        {},
        draws(engine.graph),
        _dtypes(inputs),
        alone=True,
    )


def find_layout(engine: BatchedEngine, batch_dim: str | None, pad: Mapping[str, Sequence[int]]) -> Layout:
    """The layout of a plan. Raises UsageError where it has no batch, since its requests could not be told apart."""
    _expect_stateless(engine)
    inputs = [b for b in engine.inputs if b.default is None]
    if not inputs:
        hint = Wording("run it by engine.run({})", flags=_WITHOUT.flags)
        raise UsageError("the plan has no inputs that could be batched", hint=hint)
    for binding in (*inputs, *engine.outputs):
        if not isinstance(binding.type, TensorType) or binding.type.shape is None:
            raise UsageError(f"{binding} cannot be batched: it is no tensor of known rank", hint=_WITHOUT)
    name, fixed = _batch_of(inputs, engine.outputs, batch_dim)
    axes = tuple(0 if fixed is not None else _axis_of("input", b, name) for b in inputs)
    output_axes = tuple(0 if fixed is not None else _axis_of("output", b, name) for b in engine.outputs)
    ranges = dict(engine.ranges)
    if fixed is not None:
        while name in {n for b in inputs for d in _dims(b) for n in names_in(d)}:
            name += "_"
        inputs = [_with_rows(b, name) for b in inputs]
    for padded in (name, *pad):  # what is smaller than allowed is padded, and what is larger is refused by its own words
        ranges.pop(padded, None)
    layout = Layout(
        name,
        fixed,
        tuple(inputs),
        axes,
        engine.outputs,
        output_axes,
        defaults_of(engine.inputs),
        ranges,
        _pads(pad),
        draws(engine.graph),
        _dtypes(inputs),
    )
    _expect_pads(layout, engine)
    return layout


def _expect_stateless(engine: BatchedEngine) -> None:
    if engine.graph.states is not None:
        raise UsageError(
            "the plan keeps states between inferences, which requests of several callers would share",
            hint="give each sequence a context of its own: engine.create_context() (docs/state.md)",
        )


def _dtypes(inputs: Sequence[Binding]) -> tuple[tuple[str, Any], ...]:
    return tuple((b.name, None if b.dtype is None or b.dtype.hasobject else b.dtype) for b in inputs)


_WITHOUT = Wording(
    "run such a plan without a Batcher: a context for each thread, engine.create_context()",
    flags="leave --max-batch and --max-delay out: each request is computed by itself",
)


def _batch_of(inputs: Sequence[Binding], outputs: Sequence[Binding], batch_dim: str | None) -> tuple[str, int | None]:
    """The batch's dimension and its size where that is fixed."""
    shown = ", ".join(map(str, inputs))
    if batch_dim is not None:
        shared = set.intersection(*({n for d in _dims(b) if (n := plain_name(d)) is not None} for b in inputs))
        if batch_dim not in shared:
            known = f"they share {', '.join(sorted(shared))}" if shared else "they share none by name"
            raise UsageError(f"batch_dim: not all inputs have a dimension {batch_dim!r}", hint=f"{known}; the inputs are {shown}")
        return batch_dim, None
    first = {d[0] if (d := _dims(b)) else None for b in inputs}
    dim = first.pop()
    if first or dim is None:
        raise UsageError(
            f"the inputs share no first dimension, which a batch could lie along: {shown}",
            hint=Wording(
                "name another that all of them have by batch_dim=; or export the model with the batch in front of every input",
                flags="leave --max-batch and --max-delay out; or name another that all of them have by --batch-dim, with --batch",
            ),
        )
    if isinstance(dim, int):
        other = next((b for b in outputs if not _dims(b) or _dims(b)[0] != dim), None)
        if other is not None or dim < 1:
            told = f"output {other} does not begin with it" if other is not None else "it is empty"
            raise UsageError(f"the first dimension of the inputs is {dim}, but no batch: {told}", hint=_WITHOUT)
        return _ROWS, dim
    name = plain_name(dim)
    if name is None:
        raise UsageError(f"the first dimension of the inputs is {dim}, which is no size of its own", hint=_WITHOUT)
    return name, None


def _axis_of(what: str, binding: Binding, name: str) -> int:
    """Where ``name`` stands in a binding. Raises UsageError where that is not one place."""
    axes = [i for i, d in enumerate(_dims(binding)) if name in names_in(d)]
    if len(axes) != 1 or plain_name(_dims(binding)[axes[0]]) != name:
        told = (
            "has no dimension" if not axes else "has more than one dimension that hangs on" if len(axes) > 1 else "computes with"
        )
        raise UsageError(
            f"{what} {binding} {told} {name}: what belongs to which request of a batch cannot be told",
            hint=Wording(
                f"name the batch by batch_dim=, if it is not {name}; otherwise {_WITHOUT}",
                flags=f"name the batch by --batch-dim, with --batch, if it is not {name}; otherwise {_WITHOUT.flags}",
            ),
        )
    return axes[0]


def _dims(binding: Binding) -> tuple[Dim, ...]:
    return binding.type.shape or () if isinstance(binding.type, TensorType) else ()


def _with_rows(binding: Binding, name: str) -> Binding:
    assert isinstance(binding.type, TensorType)
    return replace(binding, type=TensorType(binding.type.dtype, (symbol(name), *_dims(binding)[1:])))


def _pads(pad: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    made = {}
    if not isinstance(pad, Mapping):
        raise UsageError(f"pad: expected sizes by dimension, got {pad!r}", hint="pad={'seq': [32, 64, 128]}")
    for name, sizes in pad.items():
        whole = isinstance(sizes, Sequence) and not isinstance(sizes, str) and all(type(s) is int and s > 0 for s in sizes)
        if not whole or not sizes:
            raise UsageError(f"pad: expected sizes for {name!r}, got {sizes!r}", hint="pad={'seq': [32, 64, 128]}")
        made[name] = tuple(sorted(set(sizes)))
    return made


def _expect_pads(layout: Layout, engine: BatchedEngine) -> None:
    names = {n for b in layout.inputs for d in _dims(b) if (n := plain_name(d)) is not None} - {layout.name}
    for name, sizes in layout.pad.items():
        if name not in names:
            known = f"it may be one of {', '.join(sorted(names))}" if names else "the plan has none but the batch"
            raise UsageError(f"pad: no input has a dimension {name!r} that could be padded", hint=known)
        allowed = engine.ranges.get(name)
        wrong = [s for s in sizes if allowed is not None and not allowed.minimum <= s <= allowed.maximum]
        if wrong:
            raise UsageError(
                f"pad: {wrong[0]} is none of the sizes that the plan takes: {allowed}", hint="build it for a wider range"
            )


def _cut(binding: Binding, grown: set[str], sizes: Mapping[str, int]) -> tuple[slice, ...] | None:
    """What of an output of a padded request is its own, where the sizes of the names in ``grown`` are ``sizes``."""
    own = [evaluate(d, sizes) if names_in(d) & grown else None for d in _dims(binding)]
    return tuple(slice(n) for n in own) if any(n is not None for n in own) else None


def draws(graph: Graph) -> bool:
    """True where an operation of the graph, or of a graph within it, draws random numbers."""
    for node in graph:
        within = [*node.graphs.values(), *([node.body] if node.body is not None else [])]
        if any(map(draws, within)) or (node.body is None and _draws(node)):
            return True
    return False


def _draws(node: Node) -> bool:
    """A Dropout draws in training mode only."""
    if not node.is_op("Dropout"):
        return lookup(node.domain, node.op).random
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    return mode is not None and (mode.constant is None or bool(mode.constant.array().any()))
