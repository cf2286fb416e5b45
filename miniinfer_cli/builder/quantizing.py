"""What a build is asked of numbers of 8 bits: which nodes keep f32, the scales of the others, and that it was done."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine_format import DimensionRange
from miniinfer_cli.builder.calibration.calibrate import Method, channel_maxima, mean_errors, scales_for
from miniinfer_cli.builder.calibration.data import reread
from miniinfer_cli.builder.precision import AUTO, named
from miniinfer_cli.errors import ModelError, UsageError
from miniinfer_cli.ir import DType, Graph, KeptNode
from miniinfer_cli.ir.quantization import FORMATS, INT8, KeepFloat, NumberFormat
from miniinfer_cli.passes.precision.choose_quantized import Quantized, choose_quantized
from miniinfer_cli.passes.precision.correct_biases import correct_biases
from miniinfer_cli.passes.precision.quantize_floats import quantize_floats
from miniinfer_cli.passes.precision.quantize_weights import WeightForm, quantize_weights
from miniinfer_cli.passes.precision.smooth_activations import smooth_activations, smoothable
from miniinfer_cli.wording import Wording, joined

_GROUP = 128  # rows that share a scale in weights of 4 bits, where nothing else is asked for
_GROUPS = (32, 64, 128)
_FORMS = {"int8": DType.I8, "int4": DType.I4}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a build is asked of 8 bits: ``weights`` alone, in that form, or all of a product's operands in ``format`` where it is
    None.

    ``smooth``: by which power of the magnitudes activations are divided, channel by channel, as SmoothQuant does; None: not.
    ``data``: samples to calibrate with (``calibration.data``), or None.
    """

    data: Any
    method: Method
    cache: Path | None
    keep: KeepFloat
    weights: WeightForm | None = None
    format: NumberFormat = INT8
    smooth: float | None = None


def checked_integers(options: Any) -> None:
    """Raises UsageError for options (BuildOptions) of another kind, that exclude each other, or that go with others alone."""
    for name in FORMATS:
        if not isinstance(getattr(options, name), bool):
            raise UsageError(f"{name}: expected True or False, got {getattr(options, name)!r}")
    if isinstance(options.keep_float, str) or not all(isinstance(w, str) for w in options.keep_float):
        raise UsageError(
            f"keep_float: expected a list of names, got {options.keep_float!r}", hint="give a list: keep_float=[...]"
        )
    cache = options.calibration_cache
    if cache is not None and not isinstance(cache, (str, os.PathLike)):
        raise UsageError(f"calibration_cache: expected a path, got {type(cache).__name__}")
    Method.of(options.calibration_method)
    _expect_form(options.weight_only, options.group_size)
    formats = [Wording(name, flags=f"--{name}") for name in FORMATS]
    asked = [told for name, told in zip(FORMATS, formats, strict=True) if getattr(options, name)]
    quantizes = bool(asked)
    asked += [Wording("weight_only", flags="--weight-only")] if options.weight_only else []
    if options.precision is not None and options.weight_only:
        asked.append(Wording(f"precision={str(options.precision)!r}", flags="--fp16 or --bf16"))
    if len(asked) > 1:
        raise UsageError(joined(" ", [joined(" and ", asked), "exclude each other"]), hint="leave one of them out")
    _expect_smoothable(options)
    given = (
        *(("calibrate", options.calibrate), ("calibration_cache", cache), ("keep_float", options.keep_float or None)),
        ("smooth_quant", options.smooth_quant),
    )
    for name, value in given:
        if value is None or quantizes or (name == "keep_float" and options.weight_only):
            continue
        flag = f"--{name.replace('_', '-')}"
        builds = list(formats)
        builds += [Wording("weight_only", flags="--weight-only")] if name == "keep_float" else []
        told = joined("", [Wording(name, flags=flag), " is for ", joined(" or ", builds), ", which is not asked for"])
        raise UsageError(told, hint=Wording("give int8=True or fp8=True", flags="give --int8 or --fp8"))
    if AUTO in options.keep_float:
        raise UsageError(
            Wording(
                "keep_float: 'auto' has to run the model, which build() does not",
                flags="--keep-float: 'auto' has to run the model, which is done with --int8 and --fp8 alone",
            ),
            hint=Wording(
                "ask miniinfer_cli.verification.floating.find_float(model, options), and give what it finds",
                flags="name the nodes: --keep-float NODE",
            ),
        )


def _expect_form(weight_only: Any, group_size: Any) -> None:
    if weight_only is not None and weight_only not in _FORMS:
        raise UsageError(f"weight_only: expected 'int8', 'int4' or None, got {weight_only!r}")
    if group_size is not None and (isinstance(group_size, bool) or group_size not in _GROUPS):
        sizes = ", ".join(map(str, _GROUPS))
        raise UsageError(f"group_size: expected one of {sizes}, got {group_size!r}")
    if group_size is not None and weight_only is None:
        told = Wording(
            "group_size is for weight_only, which is not asked for",
            flags="--group-size is for --weight-only, which is not asked for",
        )
        raise UsageError(told, hint=Wording("give weight_only='int4'", flags="give --weight-only int4"))


def _expect_smoothable(options: Any) -> None:
    alpha = options.smooth_quant
    if alpha is None:
        return
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise UsageError(f"smooth_quant: expected a number from 0 to 1, got {alpha!r}")
    if options.calibration_cache is not None:
        raise UsageError(
            Wording(
                "smooth_quant and calibration_cache exclude each other",
                flags="--smooth-quant and --calibration-cache exclude each other",
            ),
            hint="its factors come from the samples, and a cache holds none",
        )
    if options.calibrate is None and (options.int8 or options.fp8):
        raise UsageError(
            Wording("smooth_quant finds its factors on samples, and none are given", flags="--smooth-quant wants --calibrate"),
            hint=Wording("give calibrate=FOLDER or samples", flags="give --calibrate FOLDER"),
        )


def ask_for_integers(graph: Graph, options: Any) -> Asked | None:
    """What ``options`` (BuildOptions) ask of ``graph``, as imported; None for nothing. Raises UsageError for unknown names."""
    format = next((f for name, f in FORMATS.items() if getattr(options, name)), None)
    if format is None and options.weight_only is None:
        return None
    cache = None if options.calibration_cache is None else Path(options.calibration_cache)
    keep = KeepFloat(*named(graph, "keep_float", options.keep_float))
    form = None
    if options.weight_only is not None:
        form = WeightForm(_FORMS[options.weight_only], options.group_size or (_GROUP if options.weight_only == "int4" else 0))
    return Asked(
        options.calibrate, Method.of(options.calibration_method), cache, keep, form, format or INT8, options.smooth_quant
    )


@dataclass(frozen=True, slots=True)
class Done:
    """``products``: how many multiply numbers of this ``format``, or have such ``weights`` where these alone are. ``kept``: the
    others, and why.

    ``scales``: by value, of what they read; ``smoothed``: how many of these values were divided channel by channel.
    """

    products: int
    kept: tuple[KeptNode, ...]
    scales: Mapping[str, float]
    weights: WeightForm | None = None
    format: NumberFormat = INT8
    smoothed: int = 0

    @property
    def told(self) -> str:
        """The types in words: ``int8``, ``fp8``, ``int4 weights``."""
        return self.format.name if self.weights is None else f"{self.weights.format.name} weights"


def quantize(graph: Graph, asked: Asked, ranges: Sequence[DimensionRange], progress: Callable[[str], None]) -> Done:
    """Quantizes ``graph``, as ``optimize_in_f32`` leaves it. Raises ModelError where nothing of it can be, or a node cannot."""
    if asked.weights is not None:
        count, kept = quantize_weights(graph, asked.keep, asked.weights)
        if not count:
            raise _nothing("weight_only: no product of the model has weights that can be integers", kept)
        return Done(count, kept, {}, asked.weights)
    asked = replace(asked, data=reread(asked.data))
    found = calibrated(graph, asked, ranges, progress)
    errors = {} if asked.data is None else mean_errors(graph, found.chosen, found.scales, asked.data, ranges, progress)
    count = quantize_floats(graph, found.chosen, found.scales)
    correct_biases(graph, errors)
    return Done(count, found.chosen.kept, found.scales, format=asked.format, smoothed=found.smoothed)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What is to be quantized, the scale of each value that it reads, and how many of these were smoothed."""

    chosen: Quantized
    scales: Mapping[str, float]
    smoothed: int


def calibrated(graph: Graph, asked: Asked, ranges: Sequence[DimensionRange], progress: Callable[[str], None]) -> Calibrated:
    """Chooses what is quantized of ``graph``, smooths it where that is asked for, and finds the scales.

    Raises ModelError where nothing of it can be quantized, or smoothed, and what ``scales_for`` does.
    """
    chosen = choose_quantized(graph, asked.keep, asked.format)
    if not chosen.products:
        what = "floats of 8 bits" if asked.format.is_float else "integers"
        raise _nothing(f"{asked.format.name}: no product of the model can multiply {what}", chosen.kept)
    data, smoothed = asked.data, 0
    if asked.smooth is not None:
        data = reread(data)
        found = smoothable(graph, chosen)
        if not found:
            raise _nothing("smooth_quant: nothing that products read can be divided channel by channel", ())
        maxima = channel_maxima(graph, chosen, [one.value.name for one in found], data, ranges, progress)
        smoothed = smooth_activations(graph, found, maxima, asked.smooth)
        chosen = choose_quantized(graph, asked.keep, asked.format)  # some read what is divided in the place of what is not
    scales = scales_for(graph, chosen, data, asked.method, asked.cache, ranges, progress)
    return Calibrated(chosen, scales, smoothed)


_NONE = {"smooth_quant": "none is a norm's, or that of a product alone"}


def _nothing(told: str, kept: Sequence[KeptNode]) -> ModelError:
    option, _, rest = told.partition(":")
    reasons = "; ".join(f"{k.node!r} ({k.reason})" for k in kept[:3]) or _NONE.get(option, "it has none of f32")
    return ModelError(
        Wording(f"{told}: {reasons}", flags=f"--{option.replace('_', '-')}:{rest}: {reasons}"),
        hint=Wording(f"leave {option} out", flags="leave the flag out"),
    )


def recorded_integers(done: Done | None, asked: Asked | None, keep_float: Sequence[str]) -> dict[str, Any]:
    """What a plan records of it: nothing, where nothing was asked for."""
    if done is None or asked is None:
        return {}
    kept = [{"node": k.node, "op": k.op, "origins": list(k.origins), "reason": k.reason} for k in done.kept]
    own: dict[str, Any] = {"precision": done.told, "calibration": asked.method.name}
    own |= {} if asked.smooth is None else {"smooth_quant": asked.smooth}
    if asked.weights is not None:
        own = {"precision": done.told, "group_size": asked.weights.group}
    return {**own, "keep_float": sorted(keep_float), "kept_fp32": kept}
