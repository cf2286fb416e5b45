"""Why it is as fast as it is: findings with their proof and advice, what was tried, and where an inference goes."""

from collections.abc import Mapping

from miniinfer_cli.report.document import Result
from miniinfer_cli.report.figures import time_of
from miniinfer_cli.report.findings import Account, Advice, Finding
from miniinfer_cli.report.markup import Html, joined, tag
from miniinfer_cli.report.node_table import bars


def diagnosis(result: Result) -> Html | None:
    """The findings of the run, then those of nodes; None where there was no diagnosis."""
    if not result.findings:
        return None
    places: dict[str, int] = {}
    for node in reversed(result.nodes):  # of several that have one name, the first
        places[node.label] = node.number
    found = [_finding(f, places) for f in sorted(result.findings, key=lambda f: not f.is_of_run)]
    tried = [tag("li", f"{name}: {came}") for name, came in result.tried]
    folded = tag("details", tag("summary", f"{len(tried)} changes were tried"), tag("ul", *tried)) if tried else Html("")
    return tag("div", *found, folded)


def _finding(found: Finding, places: Mapping[str, int]) -> Html:
    number = places.get(found.of)
    name = "the run" if found.is_of_run else found.of
    of = tag("a", name, href=f"#n{number}") if number is not None and not found.is_of_run else tag("b", name)
    head = tag("p", tag("span", found.kind, class_=f"badge {_class(found.kind)}"), of, tag("span", f": {found.text}"))
    proof = tag("p", " · ".join(found.evidence), class_="muted") if found.evidence else Html("")
    advice = tag("ul", *map(_advice, found.advice)) if found.advice else Html("")
    return tag("div", head, proof, advice, class_="finding")


def _class(kind: str) -> str:
    return "by-" + "".join(c if c.isalnum() else "-" for c in kind)


def _advice(advice: Advice) -> Html:
    parts = [tag("b", advice.what), tag("span", f": {advice.how}" if advice.how else "")]
    if advice.gain:
        parts.append(tag("span", f" {advice.gain}", class_="faster"))
    if advice.note:
        parts.append(tag("span", f" {advice.note}", class_="muted"))
    return tag("li", joined(parts))


def account_bars(account: Account) -> Html:
    """The parts of an inference in the order in which they come."""
    told = f"An inference that is waited for takes {time_of(account.whole_ms)}. Nodes were timed by {account.timed_by}."
    return tag("div", bars(account.parts, account.whole_ms, in_order=True), tag("p", told, class_="muted"))
