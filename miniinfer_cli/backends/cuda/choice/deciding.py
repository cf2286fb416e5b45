"""Who does a node: one of its tactics, chosen by the target's policy. What was chosen, by whom and over what stays on record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from miniinfer_cli.backends.choosing import NO_TABLE, Choice, Chooser, Estimate, Found, Policy, Refused
from miniinfer_cli.backends.cuda.choice.makers import maker_of
from miniinfer_cli.backends.cuda.choice.signature import signature
from miniinfer_cli.backends.cuda.choice.tactics import tactics
from miniinfer_cli.backends.cuda.contract.problems import Variant
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Lowered, Rewrite, library_problems, with_variant
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.errors import UsageError

_SHOWN = 80  # characters of a maker: it stands in a file
NO_JOINS: Mapping[str, str] = {}
DISABLED = "disabled"
"""Why a tactic is not taken that the user disabled."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The tactic that was chosen, and how; ``variant``: in which way its library is to solve its problem."""

    tactic: Tactic
    choice: Choice
    variant: Variant | None = None

    def work(self) -> Lowered | Rewrite:
        """What the tactic emits."""
        return with_chosen_variant(emitted(self.tactic), self.variant)


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the work that its tactic emitted."""

    work: Lowered | Rewrite
    choice: Choice
    estimate: Estimate


def lower(site: Site, joins: Mapping[str, str] = NO_JOINS) -> Decided | None:
    """A node's work; None where it has no tactic that may be taken. ``joins``: see ``decide``.

    Raises what ``tactics`` and ``decide`` raise.
    """
    offered = tactics(site)
    decision = decide(site, offered, site.target.policy, joins)
    if decision is None:
        return None
    if site.target.watch is not None:
        site.target.watch(site, offered, decision)
    return Decided(decision.work(), decision.choice, decision.tactic.estimate)


def decide(site: Site, offered: Sequence[Tactic], policy: Policy, joins: Mapping[str, str] = NO_JOINS) -> Decision | None:
    """The first of the forced key where one is forced; else what the policy's table has; else the first that may be taken.

    None where there is none. ``joins``: keys of joins of the node that were not taken, and why they may not be (empty: they may).

    Raises UsageError for a forced tactic that the site does not have, or that may not be taken; it lists those that would do.
    """
    computed = cache(lambda: signature(site))
    forced = policy.forced.get(site.node.name)
    if forced is None:
        return by_table(offered, site.target, computed) or first_fit(offered, site.target, computed)
    named = [t for t in offered if t.key == forced]
    decision = first_fit(named, site.target, computed, Chooser.FORCED)
    if decision is None:
        reasons = [objection(t, site.target, computed) for t in named] or [why for key, why in joins.items() if key == forced]
        fitting = [t.key for t in offered if not objection(t, site.target, computed)]
        would_do = dict.fromkeys([*fitting, *(key for key, why in joins.items() if not why)])
        message = f"tactic {forced!r} cannot be taken: {reasons[0]}" if reasons else f"there is no tactic {forced!r}"
        raise UsageError(message, hint=f"what would do: {', '.join(would_do) or 'nothing'}")
    return decision


def by_table(offered: Sequence[Tactic], target: Target, computed: Callable[[], str]) -> Decision | None:
    """The tactic of the first record in the policy's table that can be taken; None where there is none."""
    table = target.policy.table
    if table is NO_TABLE or not offered:
        return None
    for found in table.find(computed()):
        decision, reason = by_record(found, offered, target, computed)
        if decision is not None:
            return decision
        if reason != DISABLED:
            table.pass_over(found, reason)
    return None


def by_record(
    found: Found, offered: Sequence[Tactic], target: Target, computed: Callable[[], str]
) -> tuple[Decision | None, str]:
    """The tactic that a record names; or None, and why it cannot be taken."""
    record = found.record
    tactic = next((t for t in offered if t.key == record.key and t.claims == record.claims), None)
    if tactic is None:
        return None, "this release has no such tactics there"
    variant = Variant.of(record.opaque) if record.opaque else None
    # Where the record says in which way, the library is not asked for its own: to search for that takes it long.
    reason = objection(tactic, target, computed) if variant is None else bar(tactic, target)
    if reason:
        return None, reason
    work = emitted(tactic)
    maker = maker_of(tactic, work, target)
    if maker != record.maker:
        return None, f"they were made by {record.maker[:_SHOWN]}, and here is {maker}"
    if variant is not None:
        problems = library_problems(work.actions) if isinstance(work, Lowered) else ()
        if len(problems) != 1 or not target.supports_variant(problems[0], variant):
            return None, "the library refuses its algorithms"
    return Decision(tactic, Choice(record.key, found.chooser, time_us=record.time_us), variant), ""


def emitted(tactic: Tactic) -> Lowered | Rewrite:
    """What a tactic emits."""
    work = Work()
    tactic.emit(work)
    return work.finished(tactic.key)


def with_chosen_variant(work: Lowered | Rewrite, variant: Variant | None) -> Lowered | Rewrite:
    """The work with its only library problem solved in the way of ``variant``."""
    if variant is None or not isinstance(work, Lowered):
        return work
    (problem,) = library_problems(work.actions)
    return with_variant(work, problem, variant)


def first_fit(
    offered: Sequence[Tactic], target: Target, computed: Callable[[], str], chooser: Chooser = Chooser.HEURISTIC
) -> Decision | None:
    """The first of the tactics that may be taken, and what was refused before it; None where there is none.

    ``computed`` gives the signature of what they compute.
    """
    refused: list[Refused] = []
    for tactic in offered:
        reason = objection(tactic, target, computed)
        if not reason:
            return Decision(tactic, Choice(tactic.key, chooser, tuple(refused)))
        refused.append(Refused(tactic.key, reason))
    return None


def objection(tactic: Tactic, target: Target, computed: Callable[[], str]) -> str:
    """Why the tactic may not be taken on the target; empty where it may.

    Libraries prepare its problems now, before anything is emitted. What they refuse is not asked again for this signature.
    """
    reason = bar(tactic, target)
    if reason or not tactic.problems:
        return reason
    refusals, known = target.refusals, (computed(), tactic.key, tactic.claims)
    if not refusals.has(*known):
        if all(map(target.supports, tactic.problems)):
            return ""
        refusals.add(*known)
    return "the library refuses it"


def bar(tactic: Tactic, target: Target) -> str:
    """Why the tactic may not be taken on the target, whatever libraries say; empty where it may."""
    return DISABLED if any(map(target.policy.disables, (tactic.key, *tactic.parts))) else tactic.needs(target)
