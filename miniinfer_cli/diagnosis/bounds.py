"""What bounds a layer, and a run: from the times of layers and of the run's parts, and the device's ceilings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.ceilings import Ceilings, Unit
from miniinfer_cli.diagnosis.findings import Figure, Finding, Kind
from miniinfer_cli.measuring.layers import Layer

ON_THE_HOST = ("host", "reference")
"""Tactics of steps that a reference computes."""
_DOMINANT = 0.5  # part of the time from which on one kind is what the run is bound by
_TINY = 5.0  # a layer is bound by its launch up to so many times what one more step costs at least
_ENQUEUED = 0.8  # enqueue time as a part of compute time, as in the hints of the summary
_WAITED = 0.2  # part of the wall time of an inference in which none of its parts runs
_WAITED_MS = 0.01
_SHARED = 0.7  # with several streams: part of the wall time that a part of the run takes by itself
_NEARLY = 2.0  # elementwise work computes and moves at once: it is called computing where that takes so many times as long
_FAR = 25.0  # % of a ceiling below which something else costs most of the time
_SHORT_US = 50.0  # a layer of so many us at most, far from every ceiling, is one that starts and ends, and little between
_LAYER = 0.05  # part of the layers' time from which on a layer has a finding of its own


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured: medians in ms of one inference, by the rows of the summary, which a CPU lacks but the latency.

    ``wall_ms``: wall time over the inferences of all streams in it. ``overlapped``: copies run beside the computation.
    """

    device: str
    wall_ms: float
    latency_ms: float
    layers: Sequence[Layer]
    ceilings: Ceilings | None = None
    streams: int = 1
    compute_ms: float | None = None
    enqueue_ms: float | None = None
    copies_in_ms: float = 0.0
    copies_out_ms: float = 0.0
    input_nbytes: int = 0
    output_nbytes: int = 0
    captured: bool = False
    overlapped: bool = True

    @property
    def on_gpu(self) -> bool:
        """The device is no CPU."""
        return self.device != "cpu"


def kind_of_layer(layer: Layer, ceilings: Ceilings | None) -> Kind | None:
    """What bounds the layer; None where nobody knows what it does, or what the device can do."""
    if layer.tactic in ON_THE_HOST:
        return Kind.HOST_STEP
    step_ms = None if ceilings is None or ceilings.step_us is None else ceilings.step_us / 1e3
    least_ms = 0.0 if layer.roofline is None else layer.roofline.least_ms
    if step_ms is not None and step_ms >= least_ms and layer.median_ms + (layer.gap_ms or 0.0) <= _TINY * step_ms:
        return Kind.LAUNCH
    if layer.roofline is None:
        return None
    compute_ms, memory_ms = layer.roofline.compute_ms or 0.0, layer.roofline.memory_ms
    if layer.rate is not None and layer.rate.unit is Unit.VECTOR:
        compute_ms /= _NEARLY  # the peak is that of additions within a core
    return Kind.COMPUTE if compute_ms > memory_ms else Kind.MEMORY


def diagnose_run(run: Run) -> Finding:
    """What bounds the run as a whole. No advice yet."""
    return _of_the_host(run) or _of_the_layers(run)


def diagnose_layers(run: Run, most: int = 5) -> list[Finding]:
    """What bounds the slowest layers, ``most`` at most, which each take 5 % of the layers' time or more."""
    slowest = sorted(run.layers, key=lambda layer: -layer.median_ms)[:most]
    findings = []
    for layer in slowest:
        kind = kind_of_layer(layer, run.ceilings)
        if kind is not None and layer.share >= _LAYER:
            findings.append(Finding(kind, layer.label, _told_of(kind, layer), tuple(_figures_of(kind, layer, run.ceilings))))
    return findings


def time_by_kind(run: Run) -> dict[Kind | None, float]:
    """Milliseconds of the layers, with the gaps in front of them, by what bounds them."""
    times: dict[Kind | None, float] = defaultdict(float)
    for layer in run.layers:
        kind = kind_of_layer(layer, run.ceilings)
        times[kind] += layer.median_ms
        if layer.gap_ms:
            times[Kind.LAUNCH] += layer.gap_ms
    return dict(times)


def _of_the_host(run: Run) -> Finding | None:
    """What lies around the layers: copies, enqueuing, waiting; None where none of these is what bounds the run."""
    if not run.on_gpu or run.compute_ms is None:
        return None
    compute, enqueue = run.compute_ms, run.enqueue_ms or 0.0
    # Several streams wait for each other, in copies and computation alike: the wall time alone tells.
    busy = run.wall_ms * _SHARED if run.streams > 1 else compute
    for way, copies, nbytes, gbps in (
        ("inputs", run.copies_in_ms, run.input_nbytes, None if run.ceilings is None else run.ceilings.h2d_pinned_gbps),
        ("outputs", run.copies_out_ms, run.output_nbytes, None if run.ceilings is None else run.ceilings.d2h_pinned_gbps),
    ):
        taken = nbytes / gbps / 1e6 if run.streams > 1 and gbps else copies
        if taken >= busy and taken >= enqueue and taken > 0:
            text = f"copying the {way} takes {taken:.4g} ms of an inference, computing {compute:.4g} ms"
            reached = [Figure("pinned copies reach", gbps, "GB/s")] if gbps else []
            rate = Figure("copied at", nbytes / taken / 1e6, "GB/s")
            return Finding(
                Kind.TRANSFER, "run", text, (Figure(way, nbytes, "bytes"), Figure("copying", taken, "ms"), rate, *reached)
            )
    hosted = sum(layer.median_ms for layer in run.layers if layer.tactic in ON_THE_HOST)
    if enqueue > (busy if run.streams > 1 else _ENQUEUED * compute) and hosted < _DOMINANT * compute:
        how = "one captured graph" if run.captured else "every launch by itself"
        text = f"the host takes {enqueue:.4g} ms to enqueue an inference ({how}), the GPU {compute:.4g} ms to compute it"
        figures = [Figure("enqueuing", enqueue, "ms"), Figure("computing", compute, "ms"), Figure("steps", len(run.layers))]
        return Finding(Kind.LAUNCH, "run", text, tuple(figures))
    parts = (run.copies_in_ms, compute, run.copies_out_ms)
    longest = max(*parts, enqueue) if run.overlapped else sum(parts)
    waited = run.wall_ms - longest
    if run.streams == 1 and waited > max(_WAITED * run.wall_ms, _WAITED_MS):
        text = (
            f"of {run.wall_ms:.4g} ms an inference, {waited:.4g} ms pass while neither copies nor the computation are under way"
        )
        return Finding(
            Kind.SYNCHRONIZATION,
            "run",
            text,
            (Figure("wall time", run.wall_ms, "ms"), Figure("copies and computing", longest, "ms")),
        )
    return None


def _of_the_layers(run: Run) -> Finding:
    times = time_by_kind(run)
    total = sum(times.values())
    if not total:
        return Finding(Kind.BALANCED, "run", "nothing is computed", (Figure("steps", len(run.layers)),))
    kind, taken = max(((k, t) for k, t in times.items() if k is not None), key=lambda p: p[1], default=(Kind.BALANCED, 0.0))
    layers = [layer for layer in run.layers if kind_of_layer(layer, run.ceilings) is kind]
    share = Figure("of the layers' time", 100 * taken / total, "%")
    if taken < _DOMINANT * total:
        shown = sorted(((k, t) for k, t in times.items() if k is not None), key=lambda p: -p[1])
        unknown = times.get(None, 0.0)
        text = "no single thing bounds it" if shown else "no ceilings of this device are known, nor what its layers do"
        figures = [Figure(f"{k} layers", 100 * t / total, "%") for k, t in shown]
        figures += [Figure("layers of which nobody knows", 100 * unknown / total, "%")] if unknown else []
        return Finding(Kind.BALANCED, "run", text, tuple(figures))
    many = f"{len(layers)} of {len(run.layers)} layers"
    if kind is Kind.LAUNCH:
        step_us = (run.ceilings.step_us if run.ceilings is not None else None) or 0.0
        text = f"{many} are so small that what a step costs at least is what they take"
        each = 1e3 * taken / max(len(layers), 1)
        return Finding(
            kind, "run", text, (share, Figure("a step takes", each, "us"), Figure("least that a step takes", step_us, "us"))
        )
    if kind is Kind.HOST_STEP:
        names = ", ".join(dict.fromkeys(layer.kind for layer in layers))
        text = f"{many} are computed by references on the host: {names}"
        return Finding(kind, "run", text, (share, Figure("host steps", taken, "ms"), Figure("all layers", total, "ms")))
    reached = 100 * sum(_least_ms(kind, layer) for layer in layers) / taken
    ceiling = "the arithmetic units" if kind is Kind.COMPUTE else "the bandwidth of memory"
    text = f"{many} are bound by {ceiling}, and reach {reached:.0f} % of what this device was measured to do"
    each_us = 1e3 * taken / len(layers)
    if reached < _FAR and each_us <= _SHORT_US:
        text = f"{many} are too short to fill the device: they reach {reached:.0f} % of the ceiling of {ceiling}"
        return Finding(
            Kind.LAUNCH, "run", text, (share, Figure("a layer takes", each_us, "us"), Figure("of the ceiling", reached, "%"))
        )
    if reached < _FAR:
        text = f"{many} are nearest to the ceiling of {ceiling}, and reach {reached:.0f} % of it: something else costs most time"
    flops = sum(layer.estimate.flops for layer in layers if layer.estimate is not None)
    moved = sum(layer.estimate.nbytes for layer in layers if layer.estimate is not None)
    rate = _rate(flops, taken) if kind is Kind.COMPUTE else Figure("reached", moved / taken / 1e6, "GB/s")
    return Finding(kind, "run", text, (share, rate, Figure("of the ceiling", reached, "%")))


def _least_ms(kind: Kind, layer: Layer) -> float:
    """The least time of the layer under the ceiling of this kind."""
    if layer.roofline is None:
        return 0.0
    return (layer.roofline.compute_ms or 0.0) if kind is Kind.COMPUTE else layer.roofline.memory_ms


def _rate(flops: float, ms: float) -> Figure:
    """What was computed in so many milliseconds."""
    gflops = flops / ms / 1e6
    return Figure("reached", gflops / 1e3, "TFLOP/s") if gflops >= 1e3 else Figure("reached", gflops, "GFLOP/s")


def _told_of(kind: Kind, layer: Layer) -> str:
    if kind is Kind.HOST_STEP:
        return f"{layer.kind} is computed by its reference on the host"
    if kind is Kind.LAUNCH:
        return "it is so small that what a step costs at least is what it takes"
    reached = 100 * _least_ms(kind, layer) / layer.median_ms if layer.median_ms else 0.0
    what = "the arithmetic units" if kind is Kind.COMPUTE else "the bandwidth of memory"
    more = ": something else costs most time" if reached < _FAR else ""
    return f"it is nearest to the ceiling of {what}, and reaches {reached:.0f} % of it{more}"


def _figures_of(kind: Kind, layer: Layer, ceilings: Ceilings | None) -> list[Figure]:
    figures = [Figure("time", layer.median_ms, "ms"), Figure("of the layers' time", 100 * layer.share, "%")]
    if kind is Kind.LAUNCH and ceilings is not None and ceilings.step_us is not None:
        figures.append(Figure("least that a step takes", ceilings.step_us, "us"))
    elif kind is Kind.COMPUTE and layer.estimate is not None:
        figures.append(_rate(layer.estimate.flops, layer.median_ms))
    elif kind is Kind.MEMORY and layer.gbps is not None:
        figures.append(Figure("reached", layer.gbps, "GB/s"))
    if kind in (Kind.COMPUTE, Kind.MEMORY):
        figures.append(Figure("least time under the ceiling", _least_ms(kind, layer), "ms"))
    return figures
