"""The scales of values of a graph: from a cache, or from what the graph computes on samples, on the CPU."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from engine_format import DimensionRange
from miniinfer_cli.builder.calibration.cache import read_cache, write_cache
from miniinfer_cli.builder.calibration.data import Samples, pieces
from miniinfer_cli.builder.calibration.histogram import METHODS, PERCENTILE, ChannelMaxima, Histogram
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir import Array, Graph, Node, States, Value
from miniinfer_cli.ir.quantization import INT8
from miniinfer_cli.passes.pipeline import optimize_narrowed
from miniinfer_cli.passes.precision.choose_quantized import Quantized
from miniinfer_cli.passes.precision.correct_biases import show_errors
from miniinfer_cli.passes.precision.quantize_floats import keep_float_hint
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.wording import Wording

NO_DATA = Wording(
    "give calibrate=FOLDER (or an iterable of samples), or calibration_cache=FILE of an earlier one",
    flags="give --calibrate FOLDER, or --calibration-cache FILE of an earlier one",
)
"""The way out where a scale is missing."""


@dataclass(frozen=True, slots=True)
class Method:
    """How a scale follows from the magnitudes of a value: one of METHODS, and the percentage that ``percentile`` keeps."""

    name: str = "mse"
    percentile: float = PERCENTILE

    @classmethod
    def of(cls, word: Any) -> "Method":
        """``minmax``, ``entropy``, ``mse``, ``percentile`` or ``percentile:99.9``. Raises UsageError for others."""
        name, colon, number = word.partition(":") if isinstance(word, str) else ("", "", "")
        if name in METHODS and not colon:
            return cls(name)
        try:
            percentile = float(number) if name == "percentile" else 0.0
        except ValueError:
            percentile = 0.0
        if not 50 <= percentile <= 100:
            raise UsageError(
                f"calibration method {word!r} is not known", hint=f"one of {', '.join(METHODS)}, percentile:99.9 (50 to 100)"
            )
        return cls(name, percentile)


def scales_for(
    graph: Graph,
    chosen: Quantized,
    data: Any,
    method: Method,
    cache: Path | None,
    ranges: Sequence[DimensionRange],
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """The scale of each value of ``chosen.readers``, by name. ``graph`` is as ``optimize_in_f32`` leaves it, and is not changed.

    What the file ``cache`` has is taken as it is; the rest is computed on ``data``, and the file is written anew with all.
    Raises UsageError where neither has a value, or a sample does not go with the model; ModelError where a value is not finite.
    """
    format = chosen.format
    stored = None if cache is None else read_cache(cache, format)
    known = dict(stored or {})
    missing = [v.name for v in chosen.readers if v.name not in known]
    if missing and data is None:
        first = _first_reader(chosen, missing[0])
        where = f"{cache} has no scale of {missing[0]!r}"
        if stored is None:
            where = "there is nothing to calibrate with" if cache is None else f"there is no file {cache}"
        raise UsageError(f"{format.name}: node {first.name!r} has no scale for what it reads: {where}", hint=NO_DATA)
    if missing:
        found = _observed(graph, chosen, missing, Histogram, data, ranges, progress)
        # As the file has them, which may take their place next time.
        ends = {name: h.end(method.name, method.percentile, format) or INT8.largest for name, h in found.items()}
        known |= {name: float(np.float32(end / INT8.largest)) for name, end in ends.items()}
        if cache is not None:
            write_cache(cache, method.name, known, format)
    return {v.name: known[v.name] * (INT8.largest / format.largest) for v in chosen.readers}


def _first_reader(chosen: Quantized, name: str) -> Node:
    """Of the nodes that read the value of this name, the first by name."""
    return min((n for v, found in chosen.readers.items() if v.name == name for n, _ in found), key=lambda n: n.name)


def channel_maxima(
    graph: Graph,
    chosen: Quantized,
    names: Sequence[str],
    data: Any,
    ranges: Sequence[DimensionRange],
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Array]:
    """The largest magnitude of each channel of the values of these names, on ``data``. Raises what ``scales_for`` does."""
    found = _observed(graph, chosen, names, ChannelMaxima, data, ranges, progress)
    return {name: maxima.largest for name, maxima in found.items()}


def mean_errors(
    graph: Graph,
    chosen: Quantized,
    scales: Mapping[str, float],
    data: Any,
    ranges: Sequence[DimensionRange],
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Array]:
    """What rounding shifts the outputs of each chosen product by on ``data``, by its name: f32[outputs], to be added to them.

    ``graph`` is as ``optimize_in_f32`` leaves it, and is not changed. Raises UsageError where a sample does not go with it.
    """
    shown = graph.copy()
    errors = show_errors(shown, chosen, scales)
    names = {f"{name}_error_{i}": value for name, listed in errors.items() for i, value in enumerate(listed)}
    sums: dict[str, Array] = {}
    weight = 0.0
    for feeds, results in _runs(shown, names, Samples(data), ranges, progress, "correct"):
        share = float(next((np.size(a) for a in feeds.values()), 1))
        weight += share
        for name in names:
            sums[name] = sums.get(name, 0.0) + share * np.asarray(results[name], np.float64)
    return {name: np.sum([sums[f"{name}_error_{i}"] for i in range(len(listed))], 0) / weight for name, listed in errors.items()}


class _Observer(Protocol):
    is_finite: bool

    def add(self, array: Array) -> None:
        """Looks at an array of f32."""


_Seen = TypeVar("_Seen", bound=_Observer)


def _observed(
    graph: Graph, chosen: Quantized, names: Sequence[str], make: Callable[[], _Seen], data: Any,
    ranges: Sequence[DimensionRange], progress: Callable[[str], None],
) -> Mapping[str, _Seen]:  # fmt: skip
    """What is seen of the values of these names on the samples. Raises ModelError where one is not finite."""
    samples = Samples(data)
    found = {name: make() for name in names}
    shown = graph.copy()
    values = {v.name: v for v in shown.values() if v.name in found}
    states = shown.states or States(())
    for name in sorted(states.inputs & found.keys()):
        node = _first_reader(chosen, name)
        raise ModelError(
            f"node {node.name!r}: {name!r}, which it reads, is a state, and samples show only how it begins",
            hint=keep_float_hint(node),
        )
    made = {name: f"{name}_observed" for name in names if values[name] not in shown.inputs}
    for feeds, results in _runs(shown, {made[n]: values[n] for n in made}, samples, ranges, progress, "calibrate"):
        for name, seen in found.items():
            array = results.get(made.get(name, ""), feeds.get(name))
            if array is not None:
                seen.add(np.asarray(array, np.float32))
    for name in (name for name, seen in found.items() if not seen.is_finite):
        node = _first_reader(chosen, name)
        raise ModelError(
            f"node {node.name!r}: {name!r}, which it reads, is not finite on the samples",
            hint=keep_float_hint(node, "give other samples"),
        )
    return found


def _runs(
    shown: Graph, wanted: Mapping[str, Value], samples: Samples, ranges: Sequence[DimensionRange],
    progress: Callable[[str], None], doing: str,
) -> Iterator[tuple[Mapping[str, Array], Mapping[str, Any]]]:  # fmt: skip
    """The pieces of the samples, and what ``shown``, which is changed for that, gives of the values ``wanted`` for each."""
    inputs, states = list(shown.inputs), shown.states or States(())
    ends = zip(shown.output_names, shown.outputs, strict=True)
    kept = {name: value for name, value in ends if name in states.outputs}  # nobody is given these, so they have other names, too
    shown.set_outputs([*wanted.values(), *kept.values()], [*wanted, *kept])
    remove_dead_nodes(shown)
    optimize_narrowed(shown)
    done = 0
    with load(freeze(shown, ranges=ranges, options={"tf32": False}), "cpu") as engine:
        for number, sample in enumerate(samples.read(inputs)):
            for feeds in pieces(sample, inputs, ranges):
                try:
                    results = engine.run(feeds) if wanted else {}
                except UsageError as error:
                    raise error.at(sample.name) from None
                yield feeds, results
                done += 1
            count = samples.count
            progress(f"{doing} {100 * (number + 1) / count:.0f} %" if count else f"{doing}: sample {number + 1}")
    if not done:
        raise UsageError("calibrate: there is not one sample", hint=NO_DATA)
