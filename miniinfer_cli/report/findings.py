"""What a document says of why a plan is as fast as it is, as records: findings, advice, what was tried, parts of an inference."""

from dataclasses import dataclass

from miniinfer_cli.fields import Fields
from miniinfer_cli.report.figures import rate_of, time_of

ACCOUNT = {
    "launch_ms": "launch",
    "copies_in_ms": "copies in",
    "layers_ms": "nodes",
    "gaps_ms": "gaps between them",
    "unexplained_ms": "unexplained",
    "copies_out_ms": "copies out",
    "synchronization_ms": "synchronization",
}
"""The parts of an inference in the order in which they come, by their keys."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What may help, and how it is done. ``gain``: in words; empty where none is claimed. ``note``: what goes with it."""

    what: str
    how: str
    gain: str
    note: str


@dataclass(frozen=True, slots=True)
class Finding:
    """What bounds the run, or the node of the name ``of``: by ``kind``, in words, with the figures that prove it."""

    kind: str
    of: str
    text: str
    evidence: tuple[str, ...]
    advice: tuple[Advice, ...]

    @property
    def is_of_run(self) -> bool:
        """Of the whole, not of a node."""
        return self.of == "run"


@dataclass(frozen=True, slots=True)
class Account:
    """The parts of an inference that somebody waits for, in ms by name, and how the nodes were timed. ``whole_ms``: all of it."""

    parts: tuple[tuple[str, float], ...]
    whole_ms: float
    timed_by: str


def read_findings(fields: Fields) -> tuple[Finding, ...]:
    """The findings of a document, as it has them."""
    return tuple(
        Finding(
            found.text("kind") or "",
            found.text("of") or "",
            found.text("text") or "",
            tuple(_figure(f) for f in found.objects("evidence")),
            tuple(_advice(a) for a in found.objects("advice")),
        )
        for found in fields.objects("findings")
    )


def read_tried(fields: Fields) -> tuple[tuple[str, str], ...]:
    """What was tried, and what came of it."""
    return tuple((found.text("name") or "", _outcome(found)) for found in fields.objects("tried"))


def read_account(fields: Fields) -> Account | None:
    """The account; None where there is none."""
    found = fields.object("account")
    whole = None if found is None else found.amount("whole_ms")
    if found is None or not whole:
        return None
    parts = ((name, found.number(key)) for key, name in ACCOUNT.items())
    return Account(tuple((name, ms) for name, ms in parts if ms is not None), whole, found.text("timed_by") or "")


def _figure(found: Fields) -> str:
    value, unit = found.number("value"), found.text("unit") or ""
    told = "?" if value is None else rate_of(value)
    return f"{found.text('what') or ''} {told}{f' {unit}' if unit else ''}"


def _advice(found: Fields) -> Advice:
    before, after, gain = (found.amount(k) for k in ("before_ms", "after_ms", "gain_ms"))
    told = ""
    if before and after is not None and gain is not None:
        part = f"{100 * gain / before:.0f} %, {found.text('basis') or 'basis not told'}"
        told = f"saves {time_of(gain)} of {time_of(before)} ({part})"
    return Advice(found.text("what") or "", found.text("how") or "", told, found.text("note") or "")


def _outcome(found: Fields) -> str:
    gain, reason = found.number("gain"), found.text("reason")
    if gain is None:
        return reason or "not measured"
    return f"{abs(100 * gain):.1f} % {'less' if gain >= 0 else 'more'} time"
