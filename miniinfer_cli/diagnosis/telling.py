"""The findings on a run and on its slowest layers, each with the advice that there is for it."""

from collections.abc import Sequence
from dataclasses import replace

from miniinfer_cli.diagnosis.bounds import Run, diagnose_layers, diagnose_run
from miniinfer_cli.diagnosis.findings import WORTH_TELLING, Advice, Figure, Finding, Kind, Remark

_MOST_BLOCKED = 3  # fusions that are told of with the run; those of the slowest layers are told with these


def findings_of(run: Run, remarks: Sequence[Remark], advice: Sequence[Advice]) -> list[Finding]:
    """The finding on the run first, with what was measured to help (``advice``), what helps most in front; then the layers'.

    ``remarks``: on the graph that was run. What they advise stands with the layers that they are about, with no gain claimed.
    """
    found = diagnose_run(run)
    helps = sorted(advice, key=lambda a: -(0.0 if a.gain is None else a.gain.share))
    evidence, blocked = _blocked(run, remarks)
    whole = replace(found, evidence=(*found.evidence, *evidence), advice=(*helps, *_without_gain(found), *blocked))
    return [whole, *(_with_remarks(run, finding, remarks) for finding in diagnose_layers(run))]


def _without_gain(found: Finding) -> list[Advice]:
    """What is known to be in the way, though nobody can tell what it would gain."""
    if found.kind is not Kind.HOST_STEP:
        return []
    how = "docs/ops.md has the operations that run on each device; before and after a model such work may run beside it"
    return [Advice("take the host steps out of the model, or express them by other operations", how)]


def _blocked(run: Run, remarks: Sequence[Remark]) -> tuple[list[Figure], list[Advice]]:
    """What blocks the fusion of layers that take much of the time together."""
    total = sum(layer.median_ms for layer in run.layers)
    blocked = [
        (sum(layer.median_ms for layer in run.layers if layer.label in remark.nodes), remark)
        for remark in remarks
        if remark.rule == "fusion blocked"
    ]
    taken = sum(ms for ms, _ in blocked)
    if not total or taken < WORTH_TELLING * total:
        return [], []
    blocked.sort(key=lambda item: -item[0])
    figure = Figure("in layers whose fusion is blocked", 100 * taken / total, "%")
    return [figure], [replace(remark.advice, note=remark.text) for _, remark in blocked[:_MOST_BLOCKED]]


def _with_remarks(run: Run, finding: Finding, remarks: Sequence[Remark]) -> Finding:
    advice = (r.advice for r in remarks if finding.of in r.nodes and (run.on_gpu or r.on == "any"))
    return replace(finding, advice=tuple(advice))
