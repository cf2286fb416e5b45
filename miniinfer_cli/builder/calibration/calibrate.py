"""The scales of values of a graph: from a cache, or from what the graph computes on samples, on the CPU."""

from collections.abc import Callable, Mapping, Sequence
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
from miniinfer_cli.ir import Array, Graph, Node, States
from miniinfer_cli.ir.quantization import INT8
from miniinfer_cli.passes.pipeline import optimize_narrowed
from miniinfer_cli.passes.precision.choose_quantized import Quantized
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
    inputs = list(graph.inputs)
    states = shown.states or States(())
    for name in sorted(states.inputs & found.keys()):
        node = _first_reader(chosen, name)
        raise ModelError(
            f"node {node.name!r}: {name!r}, which it reads, is a state, and samples show only how it begins",
            hint=keep_float_hint(node),
        )
    ends = zip(shown.output_names, shown.outputs, strict=True)
    kept = {name: value for name, value in ends if name in states.outputs}  # nobody is given these, so they have other names, too
    made = {name: f"{name}_observed" for name in names if values[name] not in shown.inputs}
    shown.set_outputs([*(values[name] for name in made), *kept.values()], [*made.values(), *kept])
    remove_dead_nodes(shown)
    optimize_narrowed(shown)
    done = 0
    with load(freeze(shown, ranges=ranges, options={"tf32": False}), "cpu") as engine:
        for number, sample in enumerate(samples.read(inputs)):
            for feeds in pieces(sample, inputs, ranges):
                try:
                    results = engine.run(feeds) if made else {}
                except UsageError as error:
                    raise error.at(sample.name) from None
                for name, seen in found.items():
                    array = results.get(made.get(name, ""), feeds.get(name))
                    if array is not None:
                        seen.add(np.asarray(array, np.float32))
                done += 1
            count = samples.count
            progress(f"calibrate {100 * (number + 1) / count:.0f} %" if count else f"calibrate: sample {number + 1}")
    if not done:
        raise UsageError("calibrate: there is not one sample", hint=NO_DATA)
    for name in (name for name, seen in found.items() if not seen.is_finite):
        node = _first_reader(chosen, name)
        raise ModelError(
            f"node {node.name!r}: {name!r}, which it reads, is not finite on the samples",
            hint=keep_float_hint(node, "give other samples"),
        )
    return found
