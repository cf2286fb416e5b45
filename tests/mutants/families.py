"""What there are mutants of: the registers of the product, and what it means that one of their entries is away or wrong."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from types import FunctionType
from typing import Any

from miniinfer_cli.backends.cpu import lowering as _cpu_lowering  # noqa: F401  (registers the lowerings)
from miniinfer_cli.backends.cpu import routine as cpu
from miniinfer_cli.backends.cuda.choice import tactics as cuda_tactics
from miniinfer_cli.backends.cuda.codegen.expressions import registry
from miniinfer_cli.backends.cuda.contract import site
from miniinfer_cli.backends.cuda.contract.lowering_files import bring_all
from miniinfer_cli.backends.cuda.contract.problems import Activation
from miniinfer_cli.backends.cuda.contract.site import find_lowering
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_tactics import convolution_ways
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import Finish
from miniinfer_cli.backends.cuda.tactics.products.matmul import lower_product
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.lowering_registry import LoweringRegistry
from miniinfer_cli.passes.pipeline import PHASES
from tests.mutants import wrong_expressions, wrong_graphs, wrong_launches, wrong_routines, wrong_tactics
from tests.mutants.joins import Joins
from tests.mutants.mutant import AWAY, Family, Function, Note
from tests.mutants.named_tests import CPU, CUDA, PASSES, families_of, files_of, module_of
from tests.mutants.tactic_keys import ALSO_IN, KEYS, general
from tests.mutants.views import Views

bring_all()


class _Lowerings:
    def __init__(self, name: str, register: LoweringRegistry[Any], folder: str, wrong: Any) -> None:
        self.name = name
        self.ways: tuple[str, ...] = (AWAY, *wrong.WAYS)
        self.may_not_apply: frozenset[str] = wrong.MAY_NOT_APPLY
        self._folder = folder
        self._wrong = wrong
        self._register: dict[tuple[str, str], Any] = register._lowerings

    def entries(self) -> dict[str, tuple[str, ...]]:
        return {
            _label(key): files_of(self._folder, module_of(lowering), *families_of(*key))
            for key, lowering in sorted(self._register.items())
        }

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        key = next(k for k in self._register if _label(k) == entry)
        self._register[key] = make(self._register[key])

    def did(self, answer: Any) -> bool:
        return answer is not None

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Function:
        def lower(site: Any) -> Any:
            answer = function(site)
            if answer is None:
                return None
            if way == AWAY:
                applied()
                return None
            if isinstance(answer, tuple):
                return tuple(wrong_tactics.spoiled(t, way, site, applied) for t in answer)
            return self._wrong.change(way, site, answer, applied)

        return lower


class _Tactics:
    """The tactics of lowerings with several, by key and module. Away, one is no longer listed.

    The function of an entry is what emits: that is how it is seen which tests reach it.
    """

    name = "tactic"
    ways: tuple[str, ...] = (AWAY, "scaled", "changed")
    may_not_apply: frozenset[str] = frozenset()

    def entries(self) -> dict[str, tuple[str, ...]]:
        return {
            f"{key} of {module}": files_of(CUDA, module, f"{module}_alignment", *ALSO_IN.get(module, ()))
            for module, keys in KEYS.items()
            for key in keys
        }

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        emit: Any = make(_emit)

        def listing(function: Function) -> Function:
            def tactics(site: Any) -> Any:
                found: list[Tactic] = []
                for tactic in function(site):
                    if entry_of(site, tactic) != entry:
                        found.append(tactic)
                    elif isinstance(emit, _Gone):
                        emit.applied()
                    else:
                        found.append(replace(tactic, emit=partial(emit, tactic, site)))
                return tuple(found)

            return tactics

        exchange_code(cuda_tactics.tactics, listing)

    def did(self, answer: Any) -> bool:
        return True

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Any:
        if way == AWAY:
            return _Gone(applied)

        def emit(tactic: Any, site: Any, work: Any) -> None:
            wrong_tactics.emit_wrongly(partial(function, tactic, site), tactic.key, way, site, work, applied)

        return emit


@dataclass(frozen=True)
class _Gone:
    """In the place of what emits: its tactic is not listed."""

    applied: Note


def _emit(tactic: Tactic, site: Any, work: Any) -> None:
    tactic.emit(work)


def entry_of(site: Any, tactic: Tactic) -> str:
    """The tactic as the register has it: its key, and the module of the lowering that listed it."""
    return f"{general(tactic.key)} of {module_of(find_lowering(site.node) or _emit)}"


class _Expressions:
    """Pointwise operations as C expressions, of which the kernels of regions are made."""

    name = "expression"
    ways: tuple[str, ...] = (AWAY, *wrong_expressions.WAYS)
    may_not_apply: frozenset[str] = frozenset()

    def entries(self) -> dict[str, tuple[str, ...]]:
        return {_label(k): files_of(CUDA, module_of(emit)) for k, (emit, _) in sorted(registry._EMITTERS.items())}

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        key = next(k for k in registry._EMITTERS if _label(k) == entry)
        emitter, stored = registry._EMITTERS[key]
        changed = make(emitter)
        if changed is None:
            del registry._EMITTERS[key]
        else:
            registry._EMITTERS[key] = (changed, stored)

    def did(self, answer: Any) -> bool:
        return True

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Any:
        if way == AWAY:
            applied()
            return None
        stored = next(stored for key, (_, stored) in registry._EMITTERS.items() if _label(key) == entry)
        return wrong_expressions.change(function, applied, stored=stored)


class _Passes:
    """The pipeline. A pass is exchanged by its code, since tests hold the function itself."""

    name = "pass"
    ways: tuple[str, ...] = (AWAY, *wrong_graphs.WAYS)
    may_not_apply: frozenset[str] = wrong_graphs.MAY_NOT_APPLY

    def entries(self) -> dict[str, tuple[str, ...]]:
        return {name: files_of(PASSES, module_of(run)) for name, run in self._passes().items()}

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        exchange_code(self._passes()[entry], make)

    def did(self, answer: Any) -> bool:
        return bool(answer)

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Function:
        def run(graph: Any) -> int:
            if way == AWAY:
                applied()
                return 0
            return wrong_graphs.change(way, graph, function, applied)

        return run

    def _passes(self) -> dict[str, Any]:
        return {p.name: p.run for phase in PHASES for p in phase.passes}


class _Epilogues:
    """What convolutions and products do on their way out: a part of it is dropped, and must be missed in the numbers."""

    name = "epilogue"
    ways: tuple[str, ...] = ("dropped",)
    may_not_apply: frozenset[str] = frozenset()

    def entries(self) -> dict[str, tuple[str, ...]]:
        convolution, product = files_of(CUDA, "fused_conv"), files_of(CUDA, "fused_matmul")
        parts = {f"FusedConv {part.name}": convolution for part in fields(Finish)}
        return parts | {f"FusedMatMul {part}": product for part in ("bias", "c", "activation")}

    def substitute(self, entry: str, make: Callable[[Function], Function]) -> None:
        exchange_code(convolution_ways if entry.startswith("FusedConv") else lower_product, make)

    def did(self, answer: Any) -> bool:
        return answer is not None

    def changed(self, entry: str, way: str, function: Function, applied: Note) -> Function:
        part = entry.split()[1]

        def without(record: Any) -> Any:
            if not isinstance(record, (Finish, Product, Operands)) or not getattr(record, part, None):
                return record
            applied()
            nothing: Any = Activation.NONE if part == "activation" else None
            changed: Any = replace(record, **{part: nothing})
            return changed

        return lambda *arguments: function(*map(without, arguments))


def exchange_code(function: Function, make: Callable[[Function], Function]) -> None:
    """Makes ``function`` do what ``make(a copy of it)`` does, for everyone who holds it."""
    assert isinstance(function, FunctionType) and function.__closure__ is None
    original = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    original.__kwdefaults__ = function.__kwdefaults__
    name = f"_in_place_of_{function.__name__}_{id(original)}"  # one more each time that it is exchanged
    function.__globals__[name] = make(original)
    namespace: dict[str, Any] = {}
    exec(f"def stub(*arguments, **options): return {name}(*arguments, **options)", namespace)
    function.__defaults__, function.__kwdefaults__ = None, None
    function.__code__ = namespace["stub"].__code__


def _label(key: tuple[str, str]) -> str:
    domain, op = key
    return f"{domain}.{op}" if domain else op


_ALL: tuple[Family, ...] = (
    _Lowerings("cuda", site._LOWERINGS, CUDA, wrong_launches),
    _Tactics(),
    _Lowerings("cpu", cpu._LOWERINGS, CPU, wrong_routines),
    _Expressions(),
    _Passes(),
    _Epilogues(),
    Views(),
    Joins(),
)
FAMILIES = {family.name: family for family in _ALL}
