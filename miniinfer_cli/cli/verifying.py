"""``build --verify``: its flags, its report, and the error when the check does not hold."""

import functools
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.feeds import read_inputs
from miniinfer_cli.cli.growth import Growth, error_growth
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.devices.models import expect_device
from miniinfer_cli.errors import CheckFailed, MiniinferError, UsageError
from miniinfer_cli.ir import Graph, TensorType
from miniinfer_cli.ir.quantization import FORMATS
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.verification import OutputError, SizeResult, Verification, expect_shapes, verify_plan

_LEFT_OUT = 3  # sizes passed over that are named for each reason


@dataclass(frozen=True, slots=True)
class Check:
    """What ``--verify`` and the flags beside it ask for.

    ``searching``: the inputs are for ``--keep-fp32 auto`` or ``--best``, too.
    """

    wanted: bool
    device: str
    shapes: Sequence[dict[str, tuple[int, ...]]]
    inputs: Sequence[tuple[str, Path]]
    seed: int
    searching: bool = False
    per_layer: bool = False

    def feeds(self, graph: Graph, constants: Collection[str]) -> dict[str, Any]:
        """The inputs that are given. Raises UsageError for what does not go with the model ``graph``, before it is built.

        ``constants``: its inputs that are constants.
        """
        if not (self.wanted or self.searching):
            return {}
        bindings = [Binding(v.name, v.type, graph.defaults.get(v.name)) for v in graph.inputs]
        given = read_inputs(bindings, self.inputs, {}, constants)
        expect_shapes(bindings, self.shapes)
        for b in bindings:
            if not isinstance(b.type, TensorType):
                hint = "give it from Python: miniinfer_cli.verification.verify_plan(model, plan, {...})"
                raise UsageError(f"--verify draws tensors only, and input {b} is none", hint=hint)
        return given

    def of(self, model: Path | bytes, plan: Plan, built: BuildOptions, feeds: Mapping[str, Any]) -> Verification:
        """The plan compared with its model."""
        options = DeviceOptions(**cache_options())
        return verify_plan(
            model, plan, feeds, built.mark_outputs, device=self.device, shapes=self.shapes, seed=self.seed, options=options,
            start_at=built.start_at,
        )  # fmt: skip

    def growth(
        self, model: Path | bytes, plan: Plan, built: BuildOptions, checked: Verification, feeds: Mapping[str, Any],
        printer: Printer,
    ) -> Growth:  # fmt: skip
        """Where the error grows, at the first size at which an output differs, or was compared."""
        wrong = [size for size in checked.compared if not all(o.ok for o in size.outputs)]
        size = (wrong or checked.compared)[0]
        options = DeviceOptions(**cache_options())
        return error_growth(model, plan, built, size, feeds, self.seed, self.device, options, printer)


def verify_flags(command: flags.Command) -> flags.Command:
    """Whether and how to verify; gives the command ``check``, a Check."""

    @functools.wraps(command)
    def with_check(
        *args: Any, verify: bool, verify_device: str | None, verify_shapes: tuple[dict[str, tuple[int, ...]], ...],
        inputs: tuple[tuple[str, Path], ...], seed: int, per_layer: bool, **kwargs: Any,
    ) -> Any:  # fmt: skip
        best = kwargs.get("best")
        searching = "auto" in kwargs.get("keep_fp32", ()) or (best is not None and best.wanted)
        given_flags = (("--verify-device", verify_device), ("--verify-shapes", verify_shapes), ("--input", inputs))
        for flag, given in (*given_flags, ("--per-layer", per_layer)):
            if given and not (verify or (searching and flag != "--per-layer")):
                raise UsageError(f"{flag} is for --verify, which is not asked for", hint="give --verify")
        if verify_device is not None:
            try:
                expect_device(verify_device)
            except MiniinferError as error:
                raise error.at("--verify-device") from None
        check = Check(verify, verify_device or "cpu", shape_sets(verify_shapes), inputs, seed, searching, per_layer)
        return command(*args, check=check, **kwargs)

    return flags.together(
        click.option("--verify", is_flag=True,
                     help="Run plan and model on the same inputs, at several sizes, and compare; exit 1 if they differ."),
        flags.shapes_flag("--verify-shapes", "Sizes of the inputs for --verify. May be repeated: an input that is given"
                          " again begins another set of sizes."),
        click.option("--verify-device", metavar="auto|cpu|cuda:N", help="Where --verify runs the plan.  [default: cpu]"),
        click.option("--per-layer", is_flag=True,
                     help="With --verify, compare with f32 node by node, and name the first where the error grows."),
        flags.input_flag("An input for --verify; the others are random. May be repeated."),
        flags.seed_flag("Seed of the random inputs of --verify."),
    )(with_check)  # fmt: skip


def print_verification(printer: Printer, checked: Verification) -> None:
    """Which sizes were tried, how far off each output is at worst, and the verdict."""
    printer.section(f"Verification against {checked.oracle}" if checked.oracle else "Verification")
    printer.line(f"Device: {checked.device}")
    if checked.note:
        printer.line(f"Note: {checked.note}")
    for size in checked.sizes:
        if not size.passed_over:
            printer.line(f"Size: {size.label}{_inputs(size)}{f': the plan FAILS: {size.failure}' if size.failure else ''}")
    for line in _passed_over(checked.sizes):
        printer.line(line)
    if checked.tf32:
        printer.line("Note: the GPU may round operands of f32 products to 11 bits (TF32); build with --no-tf32 for full f32")
    rows = [_row(checked, name) for name in dict.fromkeys(o.name for o in checked.outputs)]
    if rows:
        printer.table(("output", "relative error", "largest difference", "allowed", "result", "worst at"), rows)
    for name, operations in checked.random.items():
        printer.line(f"Left out: output {name!r} depends on random numbers: {', '.join(operations)}")
    for line in _verdict(checked):
        printer.line(line)


def describe_verification(checked: Verification) -> dict[str, Any]:
    """The same with stable keys: every output at every size."""

    def described(size: SizeResult) -> dict[str, Any]:
        status = "passed over" if size.passed_over else "failed" if size.failure else "compared"
        return {
            "dimensions": dict(size.sizes),
            "inputs": {name: list(shape) for name, shape in size.shapes.items()},
            "random_inputs": list(size.drawn),
            "random_integers": list(size.integers),
            "status": status,
            "reason": size.passed_over or size.failure,
        }

    def compared(size: SizeResult, o: OutputError) -> dict[str, Any]:
        return {
            "name": o.name,
            "dimensions": dict(size.sizes),
            "relative_error": o.relative,
            "max_abs_error": o.absolute,
            "tolerance": o.tolerance,
            "ok": o.ok,
            "verified": o.ok and not o.says_nothing,
            "reason": o.reason or o.says_nothing,
        }

    return {
        "oracle": checked.oracle,
        "device": checked.device,
        "note": checked.note,
        "ok": checked.ok,
        "verdict": "; ".join(_verdict(checked)),
        "sizes": [described(size) for size in checked.sizes],
        "outputs": [compared(size, o) for size in checked.sizes for o in size.outputs],
        "left_out": {name: list(operations) for name, operations in checked.random.items()},
    }


def expect_verified(checked: Verification, model: Path, at_fault: Sequence[str] = (), precision: str | None = None) -> None:
    """Raises CheckFailed when the plan differs from the oracle, fails where that does not, or nothing was verified.

    ``at_fault``: the nodes of the model whose results differ first, where that was looked for; ``precision``: the type of 16 bits
    that was asked for, ``int8``, ``fp8``, or which ``weights`` alone were (``int4 weights``).
    """
    if not checked.ok:
        fault, hint = _fault(checked)
        if at_fault:
            fault += f"; the first to differ is {'node' if len(at_fault) == 1 else 'one of'} {', '.join(map(repr, at_fault))}"
        if precision is not None and any(not o.ok for o in checked.outputs):
            hint = _way_out(precision, at_fault)
        raise CheckFailed(fault, hint=hint).at(str(model))


def _way_out(precision: str, at_fault: Sequence[str]) -> str:
    """What to do where outputs of a build in this ``precision`` are off."""
    if precision in FORMATS:
        return "verify with --input of the kind that it was calibrated with; --keep-float auto finds what has to keep f32"
    if precision.endswith("weights"):
        return "let the worst nodes keep f32: --keep-float NODE; --per-layer shows where the error grows"
    first = keep_flags("--keep-fp32", at_fault[:1]) or "--keep-fp32 NODE"
    return f"keep it in f32: {first}; --keep-fp32 auto finds all that have to"


def keep_flags(flag: str, names: Sequence[str]) -> str:
    """The names of nodes, each behind ``flag``, as they may be given again."""
    return " ".join(f"{flag} {shlex.quote(name)}" for name in names)


def _fault(checked: Verification) -> tuple[str, str]:
    """What is wrong, and the way out."""
    faults = []
    differing = [_difference(size, o) for size in checked.sizes for o in size.outputs if not o.ok]
    if differing:
        faults.append(f"the plan and {checked.oracle} differ: {', '.join(differing)}")
    faults += [f"the plan fails where {checked.oracle} does not, at {size.label}: {size.failure}" for size in checked.failures]
    if faults and checked.may_be_optimization:
        return "; ".join(faults), "find the pass by --disable-pass, and report it"
    if faults:
        return "; ".join(faults), "no optimization is at fault, the model as imported does the same: please report it"
    name = next(iter(checked.sizes[0].shapes), "x")
    hint = f"give inputs that suit the model: --input {name}=file.npy, or --verify-shapes {name}:..."
    if checked.compared:
        reasons = ", ".join(f"output {name!r} is {why}" for name, why in checked.unverified.items())
        return f"nothing was verified: {reasons}, against {checked.oracle}", hint
    return f"nothing was verified: the model itself fails at every size that was tried: {checked.sizes[0].passed_over}", hint


def _difference(size: SizeResult, o: OutputError) -> str:
    reason = f": {o.reason}" if o.reason else ""
    return f"{o.name!r} by {o.relative:.2e} (allowed {o.tolerance:.0e}) at {size.label}{reason}"


def shape_sets(parts: Sequence[dict[str, tuple[int, ...]]]) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of one flag after the other, as sets: an input that is there already begins the next."""
    sets: list[dict[str, tuple[int, ...]]] = []
    for part in parts:
        if not sets or not sets[-1].keys().isdisjoint(part):
            sets.append({})
        sets[-1].update(part)
    return sets


def _inputs(size: SizeResult) -> str:
    """The shapes used, and which inputs are random."""
    if not size.shapes:
        return ""
    low, high = size.integers
    drawn = f"random{'' if (low, high) == (0, 1) else f', integers {low}'}"
    parts = [
        f"{name} {'x'.join(map(str, shape)) or 'scalar'} ({drawn if name in size.drawn else 'given'})"
        for name, shape in size.shapes.items()
    ]
    return f": {', '.join(parts)}"


def _passed_over(sizes: Sequence[SizeResult]) -> list[str]:
    """The sizes that were passed over, together where the reasons differ in numbers only."""
    alike: dict[str, list[SizeResult]] = {}
    for size in sizes:
        if size.passed_over:
            alike.setdefault(re.sub(r"\d+", "", size.passed_over), []).append(size)
    lines = []
    for group in alike.values():
        labels = list(dict.fromkeys(size.label for size in group))
        more = f"; and {len(labels) - _LEFT_OUT} more" if len(labels) > _LEFT_OUT else ""
        lines.append(f"Passed over: {'; '.join(labels[:_LEFT_OUT])}{more}: {group[0].passed_over}")
    return lines


def _row(checked: Verification, name: str) -> tuple[str, ...]:
    found = [(size, o) for size in checked.sizes for o in size.outputs if o.name == name]
    size, o = min(found, key=lambda pair: (pair[1].ok, bool(pair[1].says_nothing), -pair[1].relative))
    return name, f"{o.relative:.2e}", f"{o.absolute:.2e}", f"{o.tolerance:.0e}", o.result, size.label


def _verdict(checked: Verification) -> list[str]:
    if checked.nothing_to_compare:
        return ["Verdict: nothing is left to compare"]
    unverified = checked.unverified
    lines = [f"Not verified: output {name!r} is {why}" for name, why in unverified.items()]
    done = dict.fromkeys(size.label for size in checked.compared)
    if len(done) == 1:
        others = "others were refused" if any(s.passed_over for s in checked.sizes) else "no other was tried"
        only = f"one size only ({next(iter(done))}): {others}" if checked.compared[0].sizes else "its only size"
    else:
        only = f"{len(done) or 'no'} sizes"
    where = f"on {checked.device}, against {checked.oracle}, at {only}"
    rest = f" but for {', '.join(map(repr, unverified))}" if unverified else ""
    if not checked.ok:
        lines.append(f"Verdict: not verified {where}")
    elif len(unverified) == len({o.name for o in checked.outputs}):
        lines.append(f"Verdict: nothing but shapes and types of empty outputs was verified {where}")
    else:
        lines.append(f"Verdict: verified{rest} {where}")
    if checked.device == "cpu":
        lines.append("What a GPU computes is not checked: --verify-device cuda:0 does")
    return lines
