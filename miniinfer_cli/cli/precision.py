"""Element types of a build: its flags, the search for what keeps f32, and what is told of both."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.builder.building import Built
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.builder.precision import ALL, AUTO
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.flag_values import TypeParam
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.verifying import Check, keep_flags
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import KeptNode
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.verification.floating import FloatFound
from miniinfer_cli.verification.keeping import KeptFound, find_kept

_SHOWN = 12  # kept nodes that the report of a build shows; inspect shows all


def precision_flags(command: flags.Command) -> flags.Command:
    """In which element types to compute; gives the command ``precision``, ``keep_fp32`` and ``io_types``."""

    @functools.wraps(command)
    def with_types(*args: Any, fp16: bool, bf16: bool, **kwargs: Any) -> Any:
        if fp16 and bf16:
            raise UsageError("--fp16 and --bf16 exclude each other", hint="leave one of them out")
        return command(*args, precision="f16" if fp16 else "bf16" if bf16 else None, **kwargs)

    return flags.together(
        click.option("--fp16", is_flag=True,
                     help="Store f32 as f16, but for what would lose too much (docs/precision.md); products sum in f32."),
        click.option("--bf16", is_flag=True, help="The same in bf16."),
        click.option("--keep-fp32", "keep_fp32", multiple=True, metavar="NODE|OP|auto",
                     help="Keep f32 in this node of the model, or in all of this operation; auto finds nodes by running the"
                     " model on --input. May be repeated."),
        click.option("--io-dtype", "io_types", type=TypeParam(), multiple=True, metavar=TypeParam.name,
                     help="Take and give f32, f16 or bf16: this input or output, or all of f32. May be repeated."),
    )(with_types)  # fmt: skip


def chosen_types(io_types: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The types of ``--io-dtype`` by name. Raises UsageError for one that is given twice."""
    chosen: dict[str, str] = {}
    for name, dtype in io_types:
        if name in chosen:
            raise UsageError(f"--io-dtype: {'a type for all' if name == ALL else repr(name)} is given twice", hint="give it once")
        chosen[name] = dtype
    return chosen


@dataclass(frozen=True, slots=True)
class KeepSearch:
    """What ``auto`` of a ``flag`` that keeps nodes in f32 found, under a ``title``, and what was ``given`` beside it."""

    flag: str
    title: str
    found: KeptFound | FloatFound
    given: tuple[str, ...]

    def print(self, printer: Printer) -> None:
        """How many nodes, how far off the outputs are with them, and all as flags that may be given again."""
        found = self.found
        printer.section(self.title)
        if isinstance(found, KeptFound) and found.guessed:
            names = ", ".join(map(repr, found.guessed))
            printer.line(f"Note: this is a guess: random numbers stood for {names}; give real ones by --input NAME=FILE")
        worst = max(found.outputs, key=lambda o: o.relative, default=None)
        off = "" if worst is None else f"; output {worst.name!r} is off by {worst.relative:.2e} (allowed {worst.tolerance:.0e})"
        nodes, trials = len(found.nodes), found.trials
        printer.line(f"Found: {nodes} node{'s' * (nodes != 1)} in {trials} trial{'s' * (trials != 1)}{off}")
        if found.nodes:
            printer.line(f"The same again: {keep_flags(self.flag, [*self.given, *found.nodes])}")

    def to_json(self) -> dict[str, Any]:
        """Stable keys."""
        guessed = {"guessed_inputs": list(self.found.guessed)} if isinstance(self.found, KeptFound) else {}
        return {
            "nodes": list(self.found.nodes),
            **guessed,
            "trials": self.found.trials,
            "relative_errors": {o.name: o.relative for o in self.found.outputs},
        }


def search(printer: Printer, source: Any, options: BuildOptions, check: Check) -> KeepSearch:
    """Looks for the nodes that have to keep f32, on the inputs and the device of ``check``."""
    given = tuple(word for word in options.keep_fp32 if word != AUTO)
    with printer.stages() as stage:
        found = find_kept(
            source, options, check.feeds, device=check.device, shapes=check.shapes, seed=check.seed,
            device_options=DeviceOptions(**cache_options()), progress=stage,
        )  # fmt: skip
    return KeepSearch("--keep-fp32", "Nodes that have to keep f32", found, given)


def print_kept(printer: Printer, built: Built, precision: str) -> None:
    """Which nodes keep f32, and why."""
    printer.section(f"Element types: {precision}")
    narrowed = built.report.fired("narrow_floats")
    printer.line(f"Nodes: {narrowed} in {precision}, {len(built.kept)} keep{'s' * (len(built.kept) == 1)} f32")
    print_kept_nodes(printer, built.kept)


def print_kept_nodes(printer: Printer, kept: Sequence[KeptNode], kind: str = "f32") -> None:
    """The first nodes that keep this type, and why."""
    if kept:
        printer.table(("node", "operation", f"why it keeps {kind}"), [(k.node, k.op, k.reason) for k in kept[:_SHOWN]])
    if len(kept) > _SHOWN:
        listed = " (miniinfer inspect PLAN lists all)" if kind == "f32" else ""
        printer.line(f"... and {len(kept) - _SHOWN} more{listed}")


def describe_kept(kept: Sequence[KeptNode]) -> list[dict[str, Any]]:
    """The same with stable keys."""
    return [{"node": k.node, "op": k.op, "origins": list(k.origins), "reason": k.reason} for k in kept]


def print_recorded(printer: Printer, options: Mapping[str, Any]) -> None:
    """What a plan records of a build in fewer bits: nothing for one that was not, nor for what is not as we write it."""
    precision, kept, half = options.get("precision"), options.get("kept_fp32"), options.get("half")
    if not isinstance(precision, str) or not isinstance(kept, (list, tuple)):
        return
    one = len(kept) == 1
    both = f" and {half}" if isinstance(half, str) else ""
    printer.section(f"Element types: {precision}{both}, {len(kept)} node{'s' * (not one)} keep{'s' * one} f32")
    rows = [[str(k.get(key, "")) for key in ("node", "op", "reason")] for k in kept if isinstance(k, Mapping)]
    if rows:
        printer.table(("node", "operation", "why it keeps f32"), rows)
