"""What a build is asked of 8-bit integers: which nodes keep f32, the scales of the others, and that it was done."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine_format import DimensionRange
from miniinfer_cli.builder.calibration.calibrate import Method, scales_for
from miniinfer_cli.errors import ModelError, UsageError, nearest
from miniinfer_cli.ir import Graph, KeptNode
from miniinfer_cli.ir.quantization import KeepFloat
from miniinfer_cli.passes.driver import with_subgraphs
from miniinfer_cli.passes.precision.choose_quantized import choose_quantized
from miniinfer_cli.passes.precision.quantize_floats import quantize_floats
from miniinfer_cli.wording import Wording

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Asked:
    """``int8`` with what goes with it. ``data``: samples to calibrate with (``calibration.data``), or None."""

    data: Any
    method: Method
    cache: Path | None
    keep: KeepFloat


def checked_int8(int8: Any, calibrate: Any, method: Any, cache: Any, keep_float: Any, precision: Any) -> None:
    """Raises UsageError for values of another kind, for what excludes each other, and for what goes with ``int8`` alone."""
    if not isinstance(int8, bool):
        raise UsageError(f"int8: expected True or False, got {int8!r}")
    if isinstance(keep_float, str) or not all(isinstance(w, str) for w in keep_float):
        raise UsageError(f"keep_float: expected a list of names, got {keep_float!r}", hint="give a list: keep_float=[...]")
    if cache is not None and not isinstance(cache, (str, os.PathLike)):
        raise UsageError(f"calibration_cache: expected a path, got {type(cache).__name__}")
    Method.of(method)
    if not int8:
        for name, given in (("calibrate", calibrate), ("calibration_cache", cache), ("keep_float", keep_float or None)):
            if given is not None:
                flag = f"--{name.replace('_', '-')}"
                told = Wording(
                    f"{name} is for int8, which is not asked for", flags=f"{flag} is for --int8, which is not asked for"
                )
                raise UsageError(told, hint=Wording("give int8=True", flags="give --int8"))
        return
    if precision is not None:
        raise UsageError(
            Wording(
                f"int8 and precision={str(precision)!r} exclude each other",
                flags="--int8 and --fp16 or --bf16 exclude each other",
            ),
            hint="what does not multiply integers keeps f32: leave one of them out",
        )
    if AUTO in keep_float:
        raise UsageError(
            "keep_float: 'auto' has to run the model, which build() does not",
            hint="ask miniinfer_cli.verification.find_float(model, options), and give what it finds",
        )


def ask_for_int8(graph: Graph, options: Any) -> Asked | None:
    """What ``options`` (BuildOptions) ask of ``graph``, as imported; None without int8. Raises UsageError for unknown names."""
    if not options.int8:
        return None
    op_of = {n.name: n.op for g in with_subgraphs(graph) for n in g}
    nodes: set[str] = set()
    ops: set[str] = set()
    for word in options.keep_float:
        found = {word} & op_of.keys() or {name for name, op in op_of.items() if op == word or name.startswith(f"{word}/")}
        if not found:
            told = f"the model has no node {word!r}, and no operation"
            raise UsageError(
                Wording(f"keep_float: {told}", flags=f"--keep-float: {told}"),
                hint=nearest(word, sorted({*op_of, *op_of.values()}))
                or Wording("the names are those of the ONNX model", flags="miniinfer inspect MODEL --graph shows both"),
            )
        nodes |= found
        ops |= {word} - op_of.keys()
    cache = None if options.calibration_cache is None else Path(options.calibration_cache)
    return Asked(options.calibrate, Method.of(options.calibration_method), cache, KeepFloat(frozenset(nodes), frozenset(ops)))


@dataclass(frozen=True, slots=True)
class Done:
    """``products``: how many multiply integers. ``kept``: those that do not, and why. ``scales``: by value, of what they read."""

    products: int
    kept: tuple[KeptNode, ...]
    scales: Mapping[str, float]


def quantize(graph: Graph, asked: Asked, ranges: Sequence[DimensionRange], progress: Callable[[str, float], None]) -> Done:
    """Quantizes ``graph``, as ``optimize_in_f32`` leaves it. Raises ModelError where nothing of it can be, or a node cannot."""
    chosen = choose_quantized(graph, asked.keep)
    if not chosen.products:
        reasons = "; ".join(f"{k.node!r} ({k.reason})" for k in chosen.kept[:3]) or "it has none of f32"
        told = f"int8: no product of the model can multiply integers: {reasons}"
        raise ModelError(
            Wording(told, flags=f"--{told}"),
            hint=Wording("leave int8 out", flags="leave the flag out"),
        )
    scales = scales_for(graph, chosen, asked.data, asked.method, asked.cache, ranges, progress)
    return Done(quantize_floats(graph, chosen, scales), chosen.kept, scales)


def recorded_int8(done: Done | None, asked: Asked | None, keep_float: Sequence[str]) -> dict[str, Any]:
    """What a plan records of it: nothing, where nothing was asked for."""
    if done is None or asked is None:
        return {}
    kept = [{"node": k.node, "op": k.op, "origins": list(k.origins), "reason": k.reason} for k in done.kept]
    return {"precision": "int8", "calibration": asked.method.name, "keep_float": sorted(keep_float), "kept_fp32": kept}
