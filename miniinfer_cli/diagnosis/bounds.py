"""What bounds a layer, and a run: from the times of layers and of the run's parts, and the device's ceilings."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from miniinfer_cli.backends.ceilings import Ceilings, Unit
from miniinfer_cli.diagnosis.findings import Figure, Finding, Kind
from miniinfer_cli.measuring.layers import Layer
from miniinfer_cli.ops import find

ON_THE_HOST = ("host", "reference")
"""Tactics of steps that a reference computes: beside a GPU, and on a CPU."""
_DOMINANT = 0.5  # part of the time from which on one kind is what the run is bound by
_TINY = 5.0  # a layer is bound by its launch up to so many times what one more step costs at least
_ENQUEUED = 0.8  # enqueue time as a part of compute time, as in the hints of the summary
_WAITED = 0.2  # part of the wall time of an inference in which none of its parts runs
_WAITED_MS = 0.01
_SHARED = 0.7  # with several streams: part of the wall time that a part of the run takes by itself
_NEARLY = 2.0  # elementwise work computes and moves at once: it is called computing where that takes so many times as long
_FAR = 0.25  # part of a ceiling below which it is far from it: something else costs most of the time
_SHORT_US = 50.0  # a layer of so many us at most, far from every ceiling, is one that starts and ends, and little between
# Parts of the bandwidth where operands lie, and of memory's, with less of which elementwise work on a CPU waits for neither.
_HARDLY, _HARDLY_FROM_MEMORY = 0.08, 0.2
_LAYER = 0.05  # part of the layers' time from which on a layer has a finding of its own
_CEILING = {Kind.COMPUTE: "the arithmetic units", Kind.MEMORY: "the bandwidth of memory"}
_LAYERS_OF = {Kind.LAUNCH: "short layers, and gaps in front of layers", Kind.BALANCED: "layers far from every ceiling"}
_ELSE = ": something else costs most of the time"


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
    """What bounds the layer; None where nobody knows what it does, or what the device can do.

    What is far from every ceiling is bound by none: a short layer by its launch, a longer one on a GPU by no single thing (too
    few threads, or operations that take more than an addition). On a CPU there is nothing else to wait for, so there it is the
    ceiling that it is nearer to. A reference on a CPU may be as good as anything: where it only moves elements, where it is near
    a ceiling, and where it is tiny.
    """
    if layer.tactic == "host":
        return Kind.HOST_STEP
    if _is_tiny(layer, ceilings):
        return Kind.LAUNCH
    nearest = _nearest(layer, ceilings)
    is_near = nearest is not None and _reached(layer, nearest) >= _FAR
    if layer.tactic in ON_THE_HOST and not is_near and not _only_moves(layer):
        return Kind.HOST_STEP
    if nearest is None or ceilings is None or is_near:
        return nearest
    if layer.median_ms * 1e3 <= _SHORT_US:
        return Kind.LAUNCH
    return nearest if ceilings.threads is not None else Kind.BALANCED


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
            findings.append(
                Finding(kind, layer.label, _told_of(kind, layer, run.ceilings), tuple(_figures_of(kind, layer, run.ceilings)))
            )
    return findings


def time_by_kind(run: Run) -> dict[Kind | None, float]:
    """Milliseconds of the layers by what bounds them; gaps in front of layers are of launches."""
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
    total = sum(layer.median_ms for layer in run.layers)
    if sum(layer.median_ms for layer in run.layers if layer.tactic in ON_THE_HOST) >= _DOMINANT * total:
        return None  # there are no layers; or the host computes meanwhile, and what waits, waits for that
    if enqueue > (busy if run.streams > 1 else _ENQUEUED * compute):
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
        figures = [Figure(_LAYERS_OF.get(k, f"{k} layers"), 100 * t / total, "%") for k, t in shown]
        figures += [Figure("layers of which nobody knows", 100 * unknown / total, "%")] if unknown else []
        return Finding(Kind.BALANCED, "run", text, tuple(figures))
    many = f"{len(layers)} of {len(run.layers)} layers"
    if kind is Kind.LAUNCH:
        return _of_short_layers(run, layers, taken, share)
    if kind is Kind.HOST_STEP:
        names = ", ".join(dict.fromkeys(layer.kind for layer in layers))
        text = f"{many} are computed by references on the host: {names}"
        return Finding(kind, "run", text, (share, Figure("host steps", taken, "ms"), Figure("all layers", total, "ms")))
    if kind is Kind.BALANCED:
        text = f"{many} are far from every ceiling, and not short: something else costs most of their time"
        return Finding(kind, "run", text, (share, *_reached_together(run, layers)))
    reached = sum(_least_ms(kind, layer) for layer in layers) / taken
    text = f"{many} are bound by {_CEILING[kind]}, and reach {100 * reached:.0f} % of what this device was measured to do"
    if reached < _FAR:
        text = f"{many} are nearest to the ceiling of {_CEILING[kind]}, and reach {100 * reached:.0f} % of it{_ELSE}"
    flops = sum(layer.estimate.flops for layer in layers if layer.estimate is not None)
    moved = sum(layer.estimate.nbytes for layer in layers if layer.estimate is not None)
    rate = _rate(flops, taken) if kind is Kind.COMPUTE else Figure("reached", moved / taken / 1e6, "GB/s")
    return Finding(kind, "run", text, (share, rate, Figure("of the ceiling", 100 * reached, "%")))


def _of_short_layers(run: Run, layers: Sequence[Layer], taken: float, share: Figure) -> Finding:
    """``taken``: ms of layers that are bound by their launches, and of the gaps in front of all layers."""
    gaps = sum(layer.gap_ms or 0.0 for layer in run.layers)
    step = run.ceilings.step_us if run.ceilings is not None else None
    least = [] if step is None else [Figure("least that a step takes", step, "us")]
    if gaps >= _DOMINANT * taken:
        text = f"in the gaps in front of {len(run.layers)} layers the device waits for launches"
        figures = [share, Figure("gaps", gaps, "ms"), Figure("a gap takes", 1e3 * gaps / len(run.layers), "us")]
        return Finding(Kind.LAUNCH, "run", text, (*figures, *least))
    each = Figure("a layer takes", 1e3 * sum(layer.median_ms for layer in layers) / len(layers), "us")
    reached = _reached_together(run, layers)
    if all(_is_tiny(layer, run.ceilings) for layer in layers):
        so, reached = "so small that what a step costs at least is what they take", []
    elif run.on_gpu:
        so = "too short to fill the device: most of their time is beginning and ending"
    else:
        so = "so short that calls cost most of their time"
    return Finding(Kind.LAUNCH, "run", f"{len(layers)} of {len(run.layers)} layers are {so}", (share, each, *least, *reached))


def _is_tiny(layer: Layer, ceilings: Ceilings | None) -> bool:
    """It takes about what a step costs at least, and its work alone would take less than that."""
    if ceilings is None or ceilings.step_us is None:
        return False
    least_ms = 0.0 if layer.roofline is None else layer.roofline.least_ms
    step_ms = ceilings.step_us / 1e3
    return step_ms >= least_ms and layer.median_ms + (layer.gap_ms or 0.0) <= _TINY * step_ms


def _nearest(layer: Layer, ceilings: Ceilings | None) -> Kind | None:
    """The ceiling that it is nearer to; None where these are not known, or what it does."""
    if layer.roofline is None or ceilings is None:
        return None
    compute_ms, memory_ms = layer.roofline.compute_ms or 0.0, layer.roofline.memory_ms
    if layer.rate is not None and layer.rate.unit is Unit.VECTOR:
        if ceilings.threads is not None and layer.estimate is not None and layer.estimate.flops:
            # Exponentials and their like are many instructions for what counts as one operation.
            from_memory_ms = layer.estimate.nbytes / ceilings.memory_gbps / 1e6
            if memory_ms < _HARDLY * layer.median_ms or from_memory_ms < _HARDLY_FROM_MEMORY * layer.median_ms:
                return Kind.COMPUTE
        compute_ms /= _NEARLY  # the peak is that of additions within a core
    return Kind.COMPUTE if compute_ms > memory_ms else Kind.MEMORY


def _only_moves(layer: Layer) -> bool:
    """Its operation gives elements of its operands, and computes nothing."""
    *domain, op = layer.kind.rsplit(".", 1)
    opdef = find(domain[0] if domain else "", op)
    return opdef is not None and (opdef.moves or opdef.view)


def _least_ms(kind: Kind, layer: Layer) -> float:
    """The least time of the layer under the ceiling of this kind."""
    if layer.roofline is None:
        return 0.0
    return (layer.roofline.compute_ms or 0.0) if kind is Kind.COMPUTE else layer.roofline.memory_ms


def _reached(layer: Layer, kind: Kind) -> float:
    """What part of the ceiling of this kind it reaches."""
    return _least_ms(kind, layer) / layer.median_ms if layer.median_ms else 1.0


def _reached_together(run: Run, layers: Sequence[Layer]) -> list[Figure]:
    """What part of each ceiling those layers reach together that are nearer to it."""
    figures = []
    for kind, ceiling in _CEILING.items():
        nearer = [layer for layer in layers if _nearest(layer, run.ceilings) is kind]
        if taken := sum(layer.median_ms for layer in nearer):
            reached = sum(_least_ms(kind, layer) for layer in nearer) / taken
            figures.append(Figure(f"of the ceiling of {ceiling}", 100 * reached, "%"))
    return figures


def _rate(flops: float, ms: float) -> Figure:
    """What was computed in so many milliseconds."""
    gflops = flops / ms / 1e6
    return Figure("reached", gflops / 1e3, "TFLOP/s") if gflops >= 1e3 else Figure("reached", gflops, "GFLOP/s")


def _told_of(kind: Kind, layer: Layer, ceilings: Ceilings | None) -> str:
    if kind is Kind.HOST_STEP:
        return f"{layer.kind} is computed by its reference on the host"
    nearest = _nearest(layer, ceilings)
    if nearest is None or _is_tiny(layer, ceilings):
        return "it is so small that what a step costs at least is what it takes"
    reached = _reached(layer, nearest)
    near = f"nearest to the ceiling of {_CEILING[nearest]}, and reaches {100 * reached:.0f} % of it"
    if kind is Kind.LAUNCH:
        return f"it is short, and most of its time is beginning and ending: it is {near}"
    return f"it is {near}{_ELSE if reached < _FAR else ''}"


def _figures_of(kind: Kind, layer: Layer, ceilings: Ceilings | None) -> list[Figure]:
    figures = [Figure("time", layer.median_ms, "ms"), Figure("of the layers' time", 100 * layer.share, "%")]
    if kind is Kind.LAUNCH and ceilings is not None and ceilings.step_us is not None:
        figures.append(Figure("least that a step takes", ceilings.step_us, "us"))
    nearest = None if kind is Kind.HOST_STEP or _is_tiny(layer, ceilings) else _nearest(layer, ceilings)
    if nearest is Kind.COMPUTE and layer.estimate is not None and layer.median_ms:
        figures.append(_rate(layer.estimate.flops, layer.median_ms))
    elif nearest is Kind.MEMORY and layer.gbps is not None:
        figures.append(Figure("reached", layer.gbps, "GB/s"))
    if nearest is not None:
        figures.append(Figure("least time under the ceiling", _least_ms(nearest, layer), "ms"))
    return figures
