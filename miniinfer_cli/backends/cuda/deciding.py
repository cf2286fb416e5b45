"""Who does a node: one of its tactics, chosen by the target's policy. What was chosen, by whom and over what stays on record."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from miniinfer_cli.backends.choosing import Choice, Chooser, Estimate, Policy, Refused
from miniinfer_cli.backends.cuda.signature import signature
from miniinfer_cli.backends.cuda.site import Site
from miniinfer_cli.backends.cuda.steps import Lowered, Rewrite
from miniinfer_cli.backends.cuda.tactic import Tactic
from miniinfer_cli.backends.cuda.tactics import tactics
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.backends.cuda.work import Work
from miniinfer_cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class Decision:
    """The tactic that was chosen, and how."""

    tactic: Tactic
    choice: Choice


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision, and the work that its tactic emitted."""

    work: Lowered | Rewrite
    choice: Choice
    estimate: Estimate


def lower(site: Site) -> Decided | None:
    """A node's work; None where it has no tactic that may be taken.

    Raises what ``tactics`` and ``decide`` raise.
    """
    decision = decide(site, tactics(site), site.target.policy)
    if decision is None:
        return None
    work = Work()
    decision.tactic.emit(work)
    return Decided(work.finished(decision.choice.key), decision.choice, decision.tactic.estimate)


def decide(site: Site, offered: Sequence[Tactic], policy: Policy) -> Decision | None:
    """The first of the tactics that may be taken; the first of the forced key where one is forced. None where there is none.

    Raises UsageError for a forced tactic that the site does not have, or that may not be taken; it lists those that would do.
    """
    computed = cache(lambda: signature(site))
    forced = policy.forced.get(site.node.name)
    if forced is None:
        return first_fit(offered, site.target, computed)
    named = [t for t in offered if t.key == forced]
    decision = first_fit(named, site.target, computed, Chooser.FORCED)
    if decision is None:
        reasons = [objection(t, site.target, computed) for t in named]
        would_do = dict.fromkeys(t.key for t in offered if not objection(t, site.target, computed))
        message = f"tactic {forced!r} cannot be taken: {reasons[0]}" if reasons else f"there is no tactic {forced!r}"
        raise UsageError(message, hint=f"what would do: {', '.join(would_do) or 'nothing'}")
    return decision


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
    if any(map(target.policy.disables, (tactic.key, *tactic.parts))):
        return "disabled"
    reason = tactic.needs(target)
    if reason or not tactic.problems:
        return reason
    refusals, known = target.refusals, (computed(), tactic.key, tactic.claims)
    if not refusals.has(*known):
        if all(map(target.supports, tactic.problems)):
            return ""
        refusals.add(*known)
    return "the library refuses it"
