"""verify_plan: a plan and the model it was built from, on the same inputs, at several sizes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import read_model
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import MiniinferError, OutOfMemoryError
from miniinfer_cli.ir import DType, TensorType, Type, dtype_of, numpy_dtype
from miniinfer_cli.onnx_import.cutting import load_cut
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.runtime.bindings import defaults_of
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs
from miniinfer_cli.verification.comparison import INT8, OF_BUILDS, OutputError, compare, tolerance_of
from miniinfer_cli.verification.first_turn import FirstTurn
from miniinfer_cli.verification.oracles import OnnxRuntime, Oracle, OracleGone, OracleRefused, References
from miniinfer_cli.verification.origins import Origin, of_sigmoids, origins
from miniinfer_cli.verification.report import SizeResult, Verification
from miniinfer_cli.verification.steadiness import UNSTEADY, unsteady
from miniinfer_cli.verification.trials import Shapes, Trial, trials

_SIGMOID_STEPS = 2.0**-23  # four of ONNX Runtime's
_ENOUGH = 2  # sizes that show that a plan does not only work at one
# The least and the greatest of integers drawn: either, and where no size goes through with those (lengths that must not be 0,
# indices into one row) only ones, or only zeros.
_INTEGERS = ((0, 1), (1, 1), (0, 0))


def verify_plan(
    model: Any,
    plan: Plan,
    feeds: Mapping[str, Any] | None = None,
    mark_outputs: Sequence[str] = (),
    *,
    device: str = "cpu",
    shapes: Sequence[Shapes] = (),
    seed: int = 0,
    options: DeviceOptions | None = None,
    timeout_s: float = 600.0,
    start_at: Sequence[str] = (),
) -> Verification:
    """Runs the plan on ``device`` and ``model`` (a path, bytes or a ModelProto) by an oracle, on the same inputs.

    The oracle is ONNX Runtime, in a process of its own, where it is installed and takes the model; else the graph as
    imported, not optimized, run by the numpy references. ``feeds``: inputs by name; of the others those with a default have
    it, unless ``shapes`` names them, and the rest is random. They are compared at several sizes: each of ``shapes`` (sizes by
    input name), or else the smallest, optimal and largest that the plan takes, or else two made-up ones. Sizes that the oracle
    does not run are passed over, and others tried in their place. ``timeout_s``: how long ONNX Runtime may take to load the
    model, and to run it once. ``mark_outputs`` and ``start_at``: as ``build`` was told. ``seed``: of the random inputs.
    ``options``: of the device.

    Raises UsageError for feeds and shapes that do not fit, DeviceError when there is no such device.
    """
    with load(plan, device, options or DeviceOptions()) as engine:
        graph, _ = read_model(model, mark_outputs, tuple(engine.graph.defaults), start_at=start_at)
        is_quantized = any(n.is_op("QuantizeLinear", "DequantizeLinear") for g in with_subgraphs(graph) for n in g)
        remove_dead_nodes(graph)  # as every runtime does: what nobody reads may fail
        references = References(graph)
        found = origins(graph)
        random = {name: tuple(sorted(origin.random)) for name, origin in found.items() if origin.random}
        tf32 = engine.device != "cpu" and bool(plan.report.options.get("tf32", True))
        half = half_of(plan)
        if half is not None:
            found = {name: replace(o, types=o.types | {half}) if DType.F32 in o.types else o for name, o in found.items()}
        handed = {b.name for b in engine.outputs}  # without states
        found = {name: origin for name, origin in found.items() if name in handed}
        types = {n: v.type for n, v in zip(graph.output_names, graph.outputs, strict=True)}
        least = least_tolerance(plan)
        tolerances = {n: max(_allowed(types[n], o, tf32), least if o.products else 0.0) for n, o in found.items() if not o.random}
        if not tolerances:
            return Verification("", engine.device, (), random=random)
        shaped = {name for sizes in shapes for name in sizes}
        given = defaults_of([b for b in engine.inputs if b.name not in shaped]) | dict(feeds or {})
        retyped = plan.report.options.get("io_types")
        given = as_types(given, {b.name: b.type for b in engine.inputs}) if retyped else given
        own = ({v.name: v.type for v in graph.inputs} | types) if retyped else {}
        turn, steps = FirstTurn(engine, graph), of_sigmoids(graph)
        comparison = _Comparison(engine, tolerances, given, shapes, seed, references, own, turn, steps)
        try:
            if mark_outputs:
                raise OracleGone("onnxruntime returns the model's own outputs only, not the marked ones")
            source = load_cut(model, start_at) if start_at else model
            with OnnxRuntime(source, list(tolerances), timeout_s, plain=is_quantized) as runtime:
                oracle, note, sizes = runtime.name, "", comparison.against(runtime)
            if all(size.passed_over for size in sizes):
                raise OracleGone(f"{oracle} runs the model at no size that was tried: {sizes[0].passed_over}")
        except OracleGone as gone:
            oracle, note, sizes = references.name, str(gone), comparison.against(references)
        fired = any(plan.report.passes.values())
        return Verification(
            oracle, engine.device, tuple(sizes), note, random, tf32 and any(o.products for o in found.values()),
            may_be_optimization=fired and not comparison.same_unoptimized,
        )  # fmt: skip


@dataclass
class _Comparison:
    """``tolerances``: by output, of those that are compared. ``own``: the types of the model's inputs and outputs, where the plan
    may have others. ``first_turn``: what the model wants besides. ``sigmoids``: outputs that these gave. ``same_unoptimized``:
    the references have the fault, too.
    """

    engine: Engine
    tolerances: Mapping[str, float]
    given: Mapping[str, Any]
    shapes: Sequence[Shapes]
    seed: int
    references: References
    own: Mapping[str, Type | None]
    first_turn: FirstTurn
    sigmoids: frozenset[str] = frozenset()
    same_unoptimized: bool = False

    def against(self, oracle: Oracle) -> list[SizeResult]:
        """Tries sizes until enough go through; all those that are wanted in any case."""
        candidates = trials(self.engine.inputs, self.engine.ranges, self.given, self.shapes)
        results: list[SizeResult] = []
        for integers in _INTEGERS if self._draws_integers() else _INTEGERS[:1]:
            for trial in candidates:
                done = [r for r in results if r.tells]
                enough = len(done) >= min(_ENOUGH, len(candidates)) or any(r.failure for r in done)
                if (trial.wanted and integers == _INTEGERS[0]) or not (enough or trial.sizes in [r.sizes for r in done]):
                    results.append(self._try(trial, integers, oracle))
        return results

    def _draws_integers(self) -> bool:
        drawn = [b.type for b in self.engine.inputs if b.name not in self.given]
        return any(isinstance(t, TensorType) and t.dtype.is_integer for t in drawn)

    def _try(self, trial: Trial, integers: tuple[int, int], oracle: Oracle) -> SizeResult:
        drawn = tuple(b.name for b in self.engine.inputs if b.name not in self.given)
        shapes = {**trial.shapes, **{n: a.shape for n, a in self.given.items() if isinstance(a, np.ndarray)}}

        def result(**found: Any) -> SizeResult:
            return SizeResult(trial.sizes, shapes, drawn, integers, **found)

        try:
            feeds = random_inputs(self.engine.inputs, self.engine.ranges, trial.shapes, self.given, self.seed, integers)
            self.engine.check(feeds)
            exact = self.first_turn.of(as_types(feeds, self.own))
            expected = oracle.run(exact)
        except (OracleRefused, OutOfMemoryError) as error:
            return result(passed_over=_first_line(error))
        try:
            got = as_types(self.engine.run(feeds), self.own)
        except OutOfMemoryError as error:
            return result(passed_over=f"the plan: {_first_line(error)}")
        except MiniinferError as error:
            self._look_at_references(oracle, exact, expected)
            return result(failure=_first_line(error))
        outputs = tuple(self._compared(name, got[name], expected[name]) for name in self.tolerances)
        wrong = [o for o in outputs if not o.ok]
        chance = unsteady(oracle, exact, expected, wrong, self.tolerances, self.seed) if wrong else ()
        outputs = tuple(replace(o, ok=True, says_nothing=UNSTEADY) if o.name in chance else o for o in outputs)
        if not all(o.ok for o in outputs):
            self._look_at_references(oracle, exact, expected)
        return result(outputs=outputs)

    def _compared(self, name: str, got: Any, expected: Any) -> OutputError:
        """Of what Sigmoids gave, a difference of their steps is none: relative to next to nothing it may be anything."""
        found = compare(name, got, expected, self.tolerances[name])
        if found.ok or name not in self.sigmoids or found.absolute > _SIGMOID_STEPS:
            return found
        nothing = "next to 0 everywhere" if np.max(expected) <= 8 * _SIGMOID_STEPS else ""
        return replace(found, ok=True, says_nothing=nothing)

    def _look_at_references(self, oracle: Oracle, feeds: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        """Where the plan is at fault: whether what it was optimized from is, too."""
        if oracle is self.references or self.same_unoptimized:
            return
        try:
            got = self.references.run(feeds)
        except OracleRefused:
            self.same_unoptimized = True
            return
        wrong = [n for n in self.tolerances if not self._compared(n, got[n], expected[n]).ok]
        self.same_unoptimized = bool(wrong)


def _allowed(type: Type | None, origin: Origin, tf32: bool) -> float:
    """The tolerance of an output of ``type``. One of integers is where floats were rounded, and tolerates that by itself."""
    integers = isinstance(type, TensorType) and type.dtype.is_integer
    return tolerance_of({t for t in origin.types if not (integers and t.is_integer)}, tf32 and origin.products)


def half_of(plan: Plan) -> DType | None:
    """The 16-bit type that a build stored f32 in; None for one that did not."""
    options = plan.report.options
    word = options.get("half", options.get("precision"))
    return DType(word) if word in (DType.F16, DType.BF16) else None


def least_tolerance(plan: Plan) -> float:
    """The least tolerance of floats that products lead to; more than 0 where a build made operands, or weights alone, integers.

    It is that of int8, too, where ``drop_inner_quantization`` left out rounding that the model asks for, so that the plan is
    nearer to f32 than the model.
    """
    if plan.report.passes.get("drop_inner_quantization"):
        return INT8
    return OF_BUILDS.get(str(plan.report.options.get("precision")), 0.0)


def as_types(arrays: Mapping[str, Any], types: Mapping[str, Type | None]) -> dict[str, Any]:
    """The arrays by name, with floats in the element types that tensors of these names have."""
    return {name: _as_type(value, types.get(name)) for name, value in arrays.items()}


def _as_type(value: Any, type: Type | None) -> Any:
    if not isinstance(type, TensorType) or not isinstance(value, np.ndarray) or not type.dtype.is_float:
        return value
    dtype = dtype_of(value)
    if dtype is type.dtype or not dtype.is_float:
        return value
    with np.errstate(all="ignore"):
        return value.astype(numpy_dtype(type.dtype))


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
