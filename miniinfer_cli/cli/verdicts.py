"""A verdict on the times of two sides, in words and as JSON."""

from typing import Any

from miniinfer_cli.comparison.pair_tests import Relation, Verdict


def verdict_told(v: Verdict, b: str = "B", a: str = "A") -> str:
    """The verdict in words; ``b`` is what it is about, beside ``a``."""
    if v.change is None or v.low is None or v.high is None or v.spread is None:
        return f"{v.relation}: {v.why}" + ("" if v.change is None else f". So far {100 * v.change:+.2f} % of {a}'s time")
    bounds = f"{100 * v.low:+.2f} to {100 * v.high:+.2f} %" + ("" if v.p is None else f", p = {v.p:.4f}")
    unit = "processes" if v.p is None else "pairs"
    by = f"{100 * v.change:+.2f} % of {a}'s time ({bounds}; {unit} spread by {100 * v.spread:.2f} %)"
    match v.relation:
        case Relation.EQUAL:
            return f"equal within {100 * v.margin:g} %: {by}"
        case Relation.CANNOT_TELL:
            return f"cannot tell: {v.why}. So far {by}"
    return f"{b} is {v.relation}: {by}"


def described_verdict(v: Verdict) -> dict[str, Any]:
    """The same with stable keys; changes, spread and margin are parts."""
    return {
        "verdict": str(v.relation),
        "change": v.change,
        "low": v.low,
        "high": v.high,
        "p": v.p,
        "spread": v.spread,
        "margin": v.margin,
        "pairs": v.pairs,
        "pairs_needed": v.needed,
        "why": v.why,
    }
