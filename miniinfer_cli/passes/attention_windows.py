"""Masks that stand between views of attention's scores, as those of shifted windows do, told for the scores without the views.

    Reshape(scores[batch * windows, heads, q, k], [batch, windows, heads, q, k]) + mask[1, windows, 1, q, k], and back, Softmax

The axes of one view are groups of the other's: ``batch * windows`` is ``batch`` and ``windows``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from miniinfer_cli.ir import Dim, Graph, Node, Value
from miniinfer_cli.ir.dims import product
from miniinfer_cli.ops import insert
from miniinfer_cli.passes.attention_masks import Added, Step
from miniinfer_cli.passes.operands import dims
from miniinfer_cli.passes.reshape_targets import insert_reshape, reshape_target

_ROWS = 2  # of scores: the last axes, which a view leaves as they are


@dataclass(frozen=True, slots=True)
class Placed:
    """A mask's step, and the scores that it is applied to, under whatever view."""

    step: Step
    scores: Value

    @property
    def mask(self) -> Value:
        """What is added or asked."""
        return self.step.mask if isinstance(self.step, Added) else self.step.condition


def can_place(steps: Sequence[Placed], scores: Value) -> bool:
    """True when ``placed`` can say all masks for ``scores``: they stand under its own view, or one other that cuts axes of it."""
    shape = dims(scores)
    views = {dims(s.scores) for s in steps} - {shape}
    if not views:
        return True
    fine = next(iter(views))
    if len(views) > 1 or shape is None or fine is None:
        return False
    groups = _groups(shape[:-_ROWS], fine[:-_ROWS])
    return groups is not None and all(_fine_shape(s, shape, groups) is not None for s in steps)


def placed(graph: Graph, steps: Sequence[Placed], scores: Value, before: Node) -> tuple[Sequence[Step], "Back | None"]:
    """The steps for the view that cuts axes, and how their mask comes back from there; None where all stand under one view."""
    shape = dims(scores) or ()
    inner = next((s.scores for s in steps if dims(s.scores) != shape), None)
    fine = dims(inner)
    if inner is None or fine is None:
        return [s.step for s in steps], None
    groups = _groups(shape[:-_ROWS], fine[:-_ROWS])
    assert groups is not None, "can_place asked for it"
    masks = [insert_reshape(graph, s.mask, _fine_shape(s, shape, groups) or (), before=before, out="mask") for s in steps]
    told = [
        replace(s.step, mask=m) if isinstance(s.step, Added) else replace(s.step, condition=m)
        for s, m in zip(steps, masks, strict=True)
        if m is not None
    ]
    return told, Back(inner, groups)


@dataclass(frozen=True, slots=True)
class Back:
    """From a mask of the view ``inner`` to one of scores that have an axis for each of these ``groups`` of its own."""

    inner: Value
    groups: list[list[Dim]]

    def come(self, graph: Graph, mask: Value, before: Node) -> Value:
        """The mask, repeated along a group of axes where it tells some of them apart."""
        lead = [d for group in self.groups for d in group]
        own = dims(mask) or ()
        own = (1,) * (len(lead) + _ROWS - len(own)) + own
        target: list[Value] = []
        merged: list[Dim] = []
        at = 0
        for group in self.groups:
            told = own[at : at + len(group)]
            apart = any(d != 1 for d in told)
            for axis in range(at, at + len(group)):
                target.append(
                    insert(graph, "Shape", self.inner, before=before, out="windows", start=axis, end=axis + 1)
                    if apart and own[axis] != lead[axis]
                    else graph.add_constant([own[axis]], "one")
                )
            merged.append(product(group) if apart else 1)
            at += len(group)
        if any(v.constant is None for v in target):
            ends = graph.add_constant([1, 1], "ones")
            shape = insert(graph, "Concat", *target, ends, before=before, out="mask_shape", axis=0)
            mask = insert(graph, "Expand", mask, shape, before=before, out="mask")
        back = insert_reshape(graph, mask, (*merged, *own[-_ROWS:]), before=before, out="mask")
        assert back is not None, "one axis is left over at most"
        return back


def _groups(coarse: Sequence[Dim], fine: Sequence[Dim]) -> list[list[Dim]] | None:
    """The axes of ``fine`` that each of ``coarse`` is cut into; None where they are not."""
    groups: list[list[Dim]] = []
    rest = list(fine)
    for dim in coarse:
        group: list[Dim] = []
        while rest and (not group or product(group) != dim):
            group.append(rest.pop(0))
        if not group or product(group) != dim:
            return None
        groups.append(group)
    unknown = sum(not isinstance(product(group), int) for group in groups)
    return None if rest or unknown > 1 else groups


def _fine_shape(step: Placed, shape: tuple[Dim, ...], groups: Sequence[Sequence[Dim]]) -> tuple[Dim, ...] | None:
    """The mask's shape with all axes of the view that cuts; None where it cannot be had."""
    own = dims(step.mask)
    count = sum(map(len, groups))
    if own is None:
        return None
    if dims(step.scores) != shape:  # it stands there
        whole = (*(1,) * (count + _ROWS - len(own)), *own)
        return whole if len(whole) == count + _ROWS else None
    own = (*(1,) * (len(shape) - len(own)), *own)
    lead: list[Dim] = []
    for dim, group in zip(own[:-_ROWS], groups, strict=True):
        lead += [1] * len(group) if dim == 1 else group
    found = (*lead, *own[-_ROWS:])
    return found if reshape_target(dims(step.mask) or (), found) is not None else None
