"""A plan layer by layer: its steps are timed, an inference is waited for, and the device's ceilings are looked up or measured."""

from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.cli.progress import Extent
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.devices.ceilings import device_of
from miniinfer_cli.diagnosis.heavy import nbytes
from miniinfer_cli.errors import MiniinferError
from miniinfer_cli.measuring.account import LayerProfile, account_of
from miniinfer_cli.measuring.layers import Layer, layers_of
from miniinfer_cli.measuring.step_times import time_steps
from miniinfer_cli.ops import infer_outputs
from miniinfer_cli.runtime.cache_folder import default_cache
from miniinfer_cli.runtime.engine import Engine

_BEYOND = 1.1
"""So many times the peak no layer reaches by chance of the measurement."""
_LONG_MS = 0.02
"""Shorter layers are timed too roughly to say so."""


def layered(bench: Bench, printer: Printer, *, ceilings: bool) -> LayerProfile:
    """The layers of the plan for the bench's inputs. ``ceilings``: beside what the device can do at best."""
    engine, schedule = bench.engine, bench.wanted.schedule
    with printer.progress({"nodes": Extent(schedule.iterations)}) as progress:
        rounds, whole = time_steps(engine, bench.arrays, schedule, progress)
    best = ceilings_of(engine, printer) if ceilings else None
    program, touched = engine.program(bench.arrays), (engine.plan.weights_nbytes, sum(bindings_nbytes(bench)))
    layers = layers_of(program, rounds, best, weights_nbytes=touched[0], bindings_nbytes=touched[1])
    if best is not None and engine.device == "cpu" and beyond_best(layers):
        best = ceilings_of(engine, printer, again=True)
        layers = layers_of(program, rounds, best, weights_nbytes=touched[0], bindings_nbytes=touched[1])
    return LayerProfile(layers, rounds, account_of(layers, rounds[-1].way, whole), best)


def bindings_nbytes(bench: Bench) -> tuple[int, int]:
    """Bytes of an inference's inputs, and of its outputs; those whose size data decide count as nothing."""
    graph, inputs = bench.engine.graph_for(bench.arrays)
    outputs = infer_outputs(graph, inputs)
    return sum(a.nbytes for a in bench.arrays if isinstance(a, np.ndarray)), sum(map(nbytes, outputs))


def beyond_best(layers: Sequence[Layer]) -> bool:
    """Whether a layer that computes takes less than the device can: then its ceilings were measured beside other work.

    Winograd's convolution does with fewer multiplications than its node is counted by.
    """
    return any(
        layer.roofline is not None
        and layer.median_ms >= _LONG_MS
        and "winograd" not in layer.tactic
        and (layer.roofline.compute_ms or 0.0) > _BEYOND * layer.median_ms
        for layer in layers
    )


def ceilings_of(engine: Engine, printer: Printer, *, again: bool = False) -> Ceilings | None:
    """Those of the engine's device, measured now where nobody did before, or ``again``; None, with a note, where that fails."""
    device, cache = device_of(engine.device, engine.model.facts()), default_cache()
    found = device.kept(cache)
    if found is not None and not again:
        return found
    if again:
        printer.line("A layer is beyond what was measured as the best: the ceilings are measured again")
    kept = "once, and kept" if cache is not None else "each time: there is no cache folder (MINIINFER_CACHE)"
    printer.line(f"Measuring what {engine.device} can do at best ({kept}; --no-ceilings leaves it out)")
    try:
        with printer.stages() as told:
            return device.measured(cache, lambda stage: told(f"ceilings: {stage}"))
    except MiniinferError as error:  # no room, no compiler
        printer.line(f"note: the ceilings of {engine.device} could not be measured: {error.message}")
        return found
