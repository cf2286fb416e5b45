"""Both sides of ``compare``, run one after the other on the same inputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli.compare_wanted import CompareWanted
from miniinfer_cli.cli.feeds import read_inputs
from miniinfer_cli.cli.measuring import Bench, identity_of
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Kind, Side, fitting, opened_plan, told_of
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.comparison.outputs import OutputDifference, compare_outputs, pair_by_place
from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.verification.comparison import tolerance_of
from miniinfer_cli.verification.origins import origins


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs that both sides compute: ``feeds`` by name, and what JSON tells of them; ``batch``: their common leading size."""

    label: str
    feeds: Mapping[str, Any]
    inputs: Sequence[Mapping[str, Any]]
    batch: int | None = None


@dataclass(slots=True)
class Ran:
    """A side that ran: its plan, what it is and where it ran (as results have it), and its outputs, case by case.

    ``random``: the operations behind outputs that are random; ``tolerances``: of the others, by the types on their way.
    ``feeds``: the inputs of each case as this side takes them.
    """

    side: Side
    plan: Path
    identity: Mapping[str, Any]
    random: Mapping[str, Sequence[str]]
    tolerances: Mapping[str, float]
    feeds: Sequence[Mapping[str, Any]]
    outputs: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CaseOutputs:
    """The outputs of one case compared; ``left_out``: names of those that are random, with the operations."""

    case: Case
    differences: Sequence[OutputDifference]
    left_out: Mapping[str, Sequence[str]]
    note: str


@dataclass(frozen=True, slots=True)
class Compared:
    """``ran``: the sides that could be run, A first."""

    ran: Sequence[Ran]
    cases: Sequence[Case]
    outputs: Sequence[CaseOutputs]


def as_plan(side: Side, folder: Path, wanted: CompareWanted, printer: Printer) -> Path:
    """The file of the side's plan: an ONNX model is built into ``folder``."""
    if side.kind is Kind.PLAN:
        return side.file
    target = folder / f"{side.letter}.plan"
    with told_of(side), printer.stages() as stage:
        stage(f"build {side.letter}")
        build_plan(side.source, target, BuildOptions(plugins=wanted.plugins, limits=wanted.gpu.limits))
    return target


def run_sides(sides: Sequence[Side], folder: Path, wanted: CompareWanted, printer: Printer) -> Compared:
    """Runs what can be run on the same inputs, and compares the outputs. Raises UsageError where inputs do not fit both."""
    ran: list[Ran] = []
    cases: list[Case] = []
    for side in (s for s in sides if s.runs):
        plan = as_plan(side, folder, wanted, printer)
        number = "AB".index(side.letter)
        with told_of(side), opened_plan(plan, wanted.of(number, {})) as engine:
            cases = cases or _cases(engine, wanted, number)
            ran.append(_run(side, plan, engine, wanted.of(number, {}), cases, wanted.outputs, printer))
    cases = cases or [Case("", {}, ())]
    return Compared(ran, cases, [_compared(sides, ran, n, case, wanted) for n, case in enumerate(cases) if wanted.outputs])


def _cases(engine: Engine, wanted: CompareWanted, number: int) -> list[Case]:
    """The inputs, by what the first side that runs takes."""
    first = wanted.shapes[0]
    given = read_inputs(engine.inputs, wanted.inputs, first, engine.constant_inputs)
    for shapes in wanted.shapes[1:]:
        twice = next((name for name in shapes if name in given), None)
        if twice is not None:
            raise UsageError(f"--shapes {twice}: its sizes are those of its file", hint=f"leave {twice} out of --shapes")
    cases = []
    for shapes in wanted.shapes:
        bench = Bench.of(wanted.of(number, shapes), engine, given)
        inputs = identity_of(bench)["inputs"]
        sizes = [f"{i['name']} {'x'.join(map(str, i['shape'])) or 'scalar'}" for i in inputs if i["shape"] is not None]
        cases.append(Case(", ".join(sizes) or "no input", bench.feeds, inputs, bench.batch))
    return cases


def _run(
    side: Side, plan: Path, engine: Engine, wanted: Wanted, cases: Sequence[Case], wanted_outputs: bool, printer: Printer
) -> Ran:
    graph = engine.graph
    found = origins(graph)
    tf32 = engine.device != "cpu" and bool(engine.plan.report.options.get("tf32", True))
    feeds = [fitting(engine, case.feeds) for case in cases]
    bench = Bench(wanted, engine, {}, {}, feeds[0], engine.check(feeds[0]))
    ran = Ran(
        side, plan, {**identity_of(bench), "plan": str(side.file)},
        {name: tuple(sorted(origin.random)) for name, origin in found.items() if origin.random},
        {name: tolerance_of(origin.types, tf32 and origin.products) for name, origin in found.items()},
        feeds,
    )  # fmt: skip
    printer.line(f"{side.letter}: {side.file} ({side.kind}) on {engine.device}")
    for note in bench.notes:
        printer.line(f"note: {side.letter}: {note}")
    with engine.create_context() as context:
        ran.outputs.extend(context.run(each) for each in feeds if wanted_outputs)
    return ran


def _compared(sides: Sequence[Side], ran: Sequence[Ran], number: int, case: Case, wanted: CompareWanted) -> CaseOutputs:
    by_letter = {r.side.letter: r for r in ran}
    random = {name: operations for r in ran for name, operations in r.random.items()}
    found: list[dict[str, Any]] = []
    for side in sides:
        outputs = by_letter[side.letter].outputs[number] if side.letter in by_letter else side.arrays()
        found.append(outputs)
    a, (b, note) = found[0], pair_by_place(*found)
    tolerances = {name: max(r.tolerances.get(name, 0.0) for r in ran) for name in a} if ran else {}
    if note and len(ran) > 1:  # the other's names are others
        for mine, theirs in zip(a, found[1], strict=True):
            tolerances[mine] = max(ran[0].tolerances.get(mine, 0.0), ran[1].tolerances.get(theirs, 0.0))
            if theirs in random:
                random[mine] = random.pop(theirs)
    left_out = {name: operations for name, operations in random.items() if name in a or name in b}
    a, b = ({n: v for n, v in outputs.items() if n not in left_out} for outputs in (a, b))
    return CaseOutputs(case, compare_outputs(a, b, tolerances, wanted.closeness), left_out, note)
