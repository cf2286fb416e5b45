"""The diagnosis of ``profile``: what bounds the run and its layers, and what was tried and found to help."""

import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

from engine_format.records import DimensionRange
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.batch_flag import batch_dimension
from miniinfer_cli.cli.layering import bindings_nbytes
from miniinfer_cli.cli.linting import lint_graph
from miniinfer_cli.cli.measuring import Bench, Measured
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.cli.trying import Tried, trial_seconds, try_all
from miniinfer_cli.devices.machine import available_processors
from miniinfer_cli.diagnosis.bounds import Run, diagnose_run
from miniinfer_cli.diagnosis.findings import Finding, Kind, Remark
from miniinfer_cli.diagnosis.heavy import Heavy, heavy_nodes
from miniinfer_cli.diagnosis.telling import findings_of
from miniinfer_cli.diagnosis.trials import Situation, trials_for
from miniinfer_cli.diagnosis.variants import BuiltAs
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType
from miniinfer_cli.measuring.account import LayerProfile
from miniinfer_cli.ops import infer_graph
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.wording import as_flags


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The finding on the run first, then those on its slowest layers; and what was tried for it."""

    findings: Sequence[Finding]
    tried: Sequence[Tried]

    @property
    def run(self) -> Finding:
        """What bounds the run, and the advice that was measured to help."""
        return self.findings[0]

    def to_json(self) -> dict[str, Any]:
        """Keys ``findings`` and ``tried``; see docs/results.md."""
        tried = [
            {"name": t.trial.name, "gain": t.gain, "reason": t.reason or None, "advised": t.advice is not None}
            for t in self.tried
        ]
        return {"findings": [f.to_json() for f in self.findings], "tried": tried}


def diagnosis_flag(command: flags.Command) -> flags.Command:
    """Whether there is to be a diagnosis; gives the command ``diagnosed``."""
    text = "Do not look into what bounds it, nor try for some seconds what may help."
    return click.option("--no-diagnosis", "diagnosed", flag_value=False, default=True, type=bool, help=text)(command)


def diagnose(bench: Bench, measured: Measured, profile: LayerProfile, printer: Printer) -> Diagnosis | None:
    """Looks at what was measured, and tries what may help for some seconds; ``printer`` shows how far that is.

    A bug of its own is told on standard error, and takes neither what was measured nor the exit code: it gives None.
    """
    try:
        return _diagnosed(bench, measured, profile, printer)
    except Exception as error:  # nothing else is done here, and the traceback is shown
        traceback.print_exception(error)
        told = "this is a bug in the diagnosis, not in the figures; please report it with the lines above"
        print(f"miniinfer: {told}", file=sys.stderr)
        return None


def _diagnosed(bench: Bench, measured: Measured, profile: LayerProfile, printer: Printer) -> Diagnosis:
    graph, inputs = bench.engine.graph_for(bench.arrays)
    run = _run_of(bench, measured, profile)
    remarks = lint_graph(graph, inputs, bench.engine.plan.report.options)
    products = heavy_nodes(graph, infer_graph(graph, inputs))
    trials = trials_for(run, diagnose_run(run).kind, _situation_of(bench, remarks, products))
    with printer.stages() as stage:
        stage(f"try {', '.join(t.name for t in trials)}" if trials else "diagnose")
        tried = list(try_all(bench, trials, run.wall_ms, trial_seconds(bench.wanted.schedule.duration_s)))
    advice = [t.advice for t in tried if t.advice is not None]
    return Diagnosis(findings_of(run, remarks, advice), tried)


def print_diagnosis(printer: Printer, diagnosis: Diagnosis) -> None:
    """The findings with their numbers, and the advice under each."""
    printer.section("Diagnosis")
    for finding in diagnosis.findings:
        where = "" if finding.of == "run" else f"{finding.of}: "
        bound = str(finding.kind) if finding.kind in (Kind.BALANCED, Kind.HOST_STEP) else f"{finding.kind}-bound"
        printer.line(f"{where}{bound}: {finding.text}")
        printer.line(f"  {'; '.join(map(str, finding.evidence))}")
        for advice in finding.advice:
            gain = f"; {advice.gain}" if advice.gain is not None else ""
            printer.line(f"  -> {advice.what}: {as_flags(advice.how)}{gain}")
            if advice.note:
                printer.line(f"     {advice.note}")
        if finding.of == "run":
            _print_tried(printer, diagnosis)


def _print_tried(printer: Printer, diagnosis: Diagnosis) -> None:
    vain = [str(t) for t in diagnosis.tried if t.advice is None]
    if not any(a.gain is not None for a in diagnosis.run.advice):
        printer.line("  nothing to gain here: " + (f"tried {', '.join(vain)}" if vain else "there is nothing to try"))
    elif vain:
        printer.line(f"  no gain: {', '.join(vain)}")


def _run_of(bench: Bench, measured: Measured, profile: LayerProfile) -> Run:
    summary = measured.summary
    input_nbytes, output_nbytes = bindings_nbytes(bench)
    rows = summary.rows

    def median(name: str) -> float | None:
        return rows[name].median if name in rows else None

    return Run(
        device=bench.engine.device,
        wall_ms=summary.walltime_s * 1e3 / summary.iterations,
        latency_ms=summary.latency.median,
        layers=tuple(profile.layers),
        ceilings=profile.ceilings,
        streams=summary.streams,
        compute_ms=median("GPU compute time"),
        enqueue_ms=median("Enqueue time"),
        copies_in_ms=median("H2D latency") or 0.0,
        copies_out_ms=median("D2H latency") or 0.0,
        input_nbytes=input_nbytes,
        output_nbytes=output_nbytes,
        captured=measured.samples.captured,
        overlapped=bench.wanted.gpu.overlap,
    )


def _situation_of(bench: Bench, remarks: Sequence[Remark], products: Iterable[Heavy]) -> Situation:
    engine, gpu = bench.engine, bench.wanted.gpu
    built = BuiltAs.of(engine.plan.report.options)
    batch, sizes = _open_batch(bench)
    inner = tuple(n for r in remarks if r.rule == "fusion blocked" for n in r.advice.names)
    return Situation(
        cuda_graph=gpu.cuda_graph,
        overlap=gpu.overlap,
        pdl=gpu.pdl,
        threads=engine.model.facts().get("threads", 1),
        processors=available_processors(),
        batch=batch,
        most_batch=None if sizes is None else sizes.largest,
        batch_dim=bench.wanted.batch_dim,
        opt_level=built.level,
        disabled=built.disabled,
        tf32=built.tf32,
        inner_outputs=inner if len(inner) < len(engine.outputs) else (),
        fixable=any(r.rule == "open dimension" and any(f.what == "nodes at fixed sizes" for f in r.evidence) for r in remarks),
        wide_inputs={b.name: _nbytes(a) for b, a in zip(engine.inputs, bench.arrays, strict=True) if _is_float(b)},
        f32_products=sum(h.type.dtype is DType.F32 for h in products),
    )


def _open_batch(bench: Bench) -> tuple[int | None, DimensionRange | None]:
    """The batch of the run and the sizes that it may have; None where no other can be set, as where files or shapes give it."""
    inputs, ranges = bench.engine.inputs, bench.engine.ranges
    try:
        dimension = batch_dimension(inputs, bench.wanted.batch_dim)
        size = dimension.size_in(inputs, bench.arrays)
        if size is None:
            return None, None
        dimension.shapes(size, inputs, ranges, bench.wanted.shapes, bench.given)
    except UsageError:
        return None, None
    return size, ranges.get(dimension.name)


def _nbytes(value: Any) -> int:
    return value.nbytes if isinstance(value, np.ndarray) else 0


def _is_float(binding: Binding) -> bool:
    return binding.dtype is not None and binding.dtype.kind == "f" and binding.dtype.itemsize > 1
