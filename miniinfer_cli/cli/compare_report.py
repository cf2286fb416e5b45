"""What ``compare`` tells of outputs: the table, the verdict, and JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from miniinfer_cli.cli.compare_sides import CaseOutputs, Ran
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.sides import Side
from miniinfer_cli.comparison.outputs import OutputDifference
from miniinfer_cli.errors import CheckFailed

_SIDE_KEYS = ("plan_digest", "plan_producer", "weights_bytes", "device", "device_facts", "host", "versions", "outputs", "notes")
_TOLD = 3  # outputs that differ, named in the error


def print_outputs(printer: Printer, cases: Sequence[CaseOutputs]) -> None:
    """Every output of every case, and whether they agree."""
    printer.section("Outputs")
    for found in cases:
        if found.case.label:
            printer.line(f"Inputs: {found.case.label}")
        if found.note:
            printer.line(f"note: {found.note}")
        rows = [_row(d) for d in found.differences]
        if rows:
            printer.table(("output", "largest difference", "relative norm", "cosine", "arg-max", "allowed", "result"), rows)
        for name, operations in found.left_out.items():
            printer.line(f"Left out: output {name!r} depends on random numbers: {', '.join(operations)}")
    printer.line(f"Outputs: {outputs_verdict(cases)}")


def outputs_verdict(cases: Sequence[CaseOutputs]) -> str:
    """Whether the outputs agree, in words."""
    wrong = list(dict.fromkeys(d.error.name for found in cases for d in found.differences if not d.error.ok))
    if wrong:
        return f"differ: {', '.join(wrong)}"
    if not any(d for found in cases for d in found.differences if not d.error.says_nothing):
        return "nothing is left to compare"
    return "agree"


def expect_agreement(cases: Sequence[CaseOutputs], sides: Sequence[Side]) -> None:
    """Raises CheckFailed where an output differs."""
    wrong = [(found.case.label, d) for found in cases for d in found.differences if not d.error.ok]
    if not wrong:
        return
    told = [f"{d.error.name!r} {_by(d)}{f' at {label}' if len(cases) > 1 else ''}" for label, d in wrong[:_TOLD]]
    more = f"; and {len(wrong) - _TOLD} more" if len(wrong) > _TOLD else ""
    a, b = sides
    hint = "--rtol and --atol allow elements more; without them types decide (docs/comparing.md)"
    raise CheckFailed(f"the outputs of {a.file} and {b.file} differ: {'; '.join(told)}{more}", hint=hint)


def describe_side(side: Side, ran: Sequence[Ran]) -> dict[str, Any]:
    """A side with stable keys: its file and what that is, and, where it ran, the plan, the device and the machine."""
    mine = next((r for r in ran if r.side.letter == side.letter), None)
    identity: Mapping[str, Any] = {} if mine is None else mine.identity
    return {"file": str(side.file), "is": str(side.kind), **{key: identity[key] for key in _SIDE_KEYS if key in identity}}


def describe_outputs(found: CaseOutputs) -> dict[str, Any]:
    """The outputs of a case with stable keys."""
    return {
        "outputs": [d.to_json() for d in found.differences],
        "left_out": {name: list(operations) for name, operations in found.left_out.items()},
        "notes": [found.note] if found.note else [],
        "agree": all(d.error.ok for d in found.differences),
    }


def _row(d: OutputDifference) -> tuple[str, ...]:
    error = d.error
    cosine = "-" if d.cosine is None else f"{d.cosine:.8f}"
    argmax = "-" if d.argmax is None else f"{100 * d.argmax:.4g} %"
    return error.name, f"{error.absolute:.2e}", f"{error.relative:.2e}", cosine, argmax, d.allowed, error.result


def _by(d: OutputDifference) -> str:
    if d.beyond is not None or d.error.reason:
        return d.error.reason
    return f"by {d.error.relative:.2e} (allowed {d.error.tolerance:.0e})"
