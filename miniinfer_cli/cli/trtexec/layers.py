"""Layers as trtexec tells of them: what each took, and what each is."""

import statistics
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.backends.interface import Step
from miniinfer_cli.cli.measuring import Bench
from miniinfer_cli.cli.trtexec.log import Log
from miniinfer_cli.ir import Node, TensorType, Type, Value
from miniinfer_cli.ir.dims import evaluate, names_in
from miniinfer_cli.measuring.account import LayerProfile
from miniinfer_cli.ops.inference import infer_graph
from miniinfer_cli.runtime.bindings import Binding

# Element types as weights have them, and as formats of tensors do: those who read the file look for these words.
_TYPES = {
    "f32": ("Float", "Row major linear FP32"), "f16": ("Half", "Row major linear FP16 format"), "f64": ("Double", "Double"),
    "bf16": ("BFloat16", "Row major linear BFloat16 format"), "i8": ("Int8", "Row major Int8 format"),
    "u8": ("UInt8", "Row major linear UInt8 format"), "i16": ("Int16", "Int16"), "u16": ("UInt16", "UInt16"),
    "i32": ("Int32", "Row major linear Int32"), "u32": ("UInt32", "UInt32"), "i64": ("Int64", "Row major linear Int64 format"),
    "u64": ("UInt64", "UInt64"), "bool": ("Bool", "Row major linear BOOL"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """What a layer took in all rounds together, on average, and in the middle, in ms; ``share``: of all layers, in percent."""

    name: str
    total_ms: float
    average_ms: float
    median_ms: float
    share: float


def layer_names(labels: Sequence[str]) -> list[str]:
    """The names of steps; of several that have the same the second is ``name [2]``, so that each is one layer."""
    met: Counter[str] = Counter()
    names = []
    for label in labels:
        met[label] += 1
        names.append(label if met[label] == 1 else f"{label} [{met[label]}]")
    return names


def times_of(profile: LayerProfile) -> list[LayerTimes]:
    """The times of each layer, in program order."""
    names = layer_names([layer.label for layer in profile.layers])
    columns = [[ns / 1e6 for ns in column] for column in zip(*(r.steps_ns for r in profile.rounds), strict=True)]
    whole = sum(map(sum, columns)) or 1.0
    return [
        LayerTimes(name, sum(column), statistics.fmean(column), statistics.median(column), 100 * sum(column) / whole)
        for name, column in zip(names, columns, strict=True)
    ]


def print_profile(log: Log, layers: Sequence[LayerTimes], rounds: int) -> None:
    """The table of layers, and their sum."""
    sums = [sum(getattr(one, name) for one in layers) for name in ("total_ms", "average_ms", "median_ms", "share")]
    log.banner(f"Profile ({rounds} iterations )")
    log.info("   Time(ms)     Avg.(ms)   Median(ms)   Time(%)   Layer")
    for one in [*layers, LayerTimes("Total", *sums)]:
        figures = f"{one.total_ms:11.2f}  {one.average_ms:11.4f}  {one.median_ms:11.4f}  {one.share:8.1f}"
        log.info(f"{figures}   {one.name}")
    log.info()


def profile_to_json(layers: Sequence[LayerTimes], rounds: int) -> list[dict[str, Any]]:
    """The same as JSON: how many rounds, then each layer."""
    return [
        {"count": rounds},
        *(
            {
                "name": one.name,
                "timeMs": one.total_ms,
                "averageMs": one.average_ms,
                "medianMs": one.median_ms,
                "percentage": one.share,
            }
            for one in layers
        ),
    ]


def layers_to_json(bench: Bench, verbosity: str) -> dict[str, Any]:
    """Layers, and inputs and outputs, with the keys of version 10 and of version 11. ``verbosity`` as --profilingVerbosity."""
    engine = bench.engine
    steps = engine.program(bench.arrays).steps
    names = layer_names([step.label for step in steps])
    layers: list[Any] = []
    if verbosity in ("detailed", "default"):
        graph, types = engine.graph_for(bench.arrays)
        known = infer_graph(graph, types)
        nodes = {node.name: node for node in graph}
        reads = engine.program(bench.arrays).sources()
        layers = [
            _layer(name, step, nodes.get(step.label), known, [names[i] for i in reads[place]])
            for place, (name, step) in enumerate(zip(names, steps, strict=True))
        ]
    elif verbosity == "layer_names_only":
        layers = list(names)
    bindings = [*engine.inputs, *engine.outputs]
    tensors = [_tensor(bench, b, "Input") for b in engine.inputs] + [_tensor(bench, b, "Output") for b in engine.outputs]
    return {"Layers": layers, "Bindings": [b.name for b in bindings], "I/O Tensors": tensors}


def print_layers(log: Log, described: Mapping[str, Any]) -> None:
    """The layers of ``layers_to_json``, one a line."""
    log.info("Layer Information:")
    for layer in described["Layers"]:
        if isinstance(layer, str):
            log.info(layer)
            continue
        sides = (", ".join(f"{t['Name']} {_by_x(t['Dimensions'])}" for t in layer[key]) for key in ("Inputs", "Outputs"))
        log.info(f"Name: {layer['Name']}, LayerType: {layer['LayerType']}, {' -> '.join(sides)}, Tactic: {layer['TacticName']}")
    log.info(f"Bindings: {', '.join(described['Bindings'])}")


def _layer(name: str, step: Step, node: Node | None, types: Mapping[Value, Type | None], reads: Sequence[str]) -> dict[str, Any]:
    """A layer. ``node`` is None where it computes part of one, or several: it has the names of the layers that it reads then."""
    held = [v for v in node.inputs if v is not None] if node is not None else []
    weights = [v for v in held if v.constant is not None]
    kind = max(weights, key=lambda v: v.constant.size if v.constant is not None else 0).type if weights else None
    inputs = [_port(v.name, types.get(v, v.type)) for v in held if v.constant is None]
    return {
        "Name": name,
        "LayerType": step.kind,
        "Inputs": inputs if node is not None else [_port(read, None) for read in reads],
        "Outputs": [_port(v.name, types.get(v, v.type)) for v in node.outputs] if node is not None else [_port(name, None)],
        "ParameterType": step.kind,
        "Weights": {
            "Type": _type(kind) if weights else "Float",
            "Count": sum(v.constant.size for v in weights if v.constant is not None),
        },
        "TacticName": step.tactic,
        "TacticValue": f"0x{zlib.crc32(step.tactic.encode()):016x}",
        "StreamId": 0,
        "Metadata": "\x1e".join(f"[ONNX Layer: {origin}]" for origin in step.origins),
    }


def _port(name: str, kind: Type | None) -> dict[str, Any]:
    shape = kind.shape if isinstance(kind, TensorType) and kind.shape is not None else ()
    return {
        "Name": name,
        "Location": "Device",
        "Dimensions": [d if isinstance(d, int) else -1 for d in shape],
        "Format/Datatype": _format(kind),
    }


def _type(kind: Type | None) -> str:
    return _words(kind)[0]


def _format(kind: Type | None) -> str:
    return _words(kind)[1]


def _words(kind: Type | None) -> tuple[str, str]:
    name = str(kind.dtype) if isinstance(kind, TensorType) else ""
    return _TYPES.get(name, (name or "None", "Unknown format"))


def _tensor(bench: Bench, binding: Binding, mode: str) -> dict[str, Any]:
    dims = binding.type.shape if isinstance(binding.type, TensorType) and binding.type.shape is not None else ()
    ranges = bench.engine.ranges

    def at(which: str) -> list[int]:
        sizes = {n: getattr(ranges[n], which) for d in dims for n in names_in(d) if n in ranges}
        found = [evaluate(d, {n: s for n, s in sizes.items() if s is not None}) for d in dims]
        return [-1 if size is None else size for size in found]

    bounds = {"MinShape": at("minimum"), "OptShape": at("optimum"), "MaxShape": at("largest")}
    return {
        "Name": binding.name,
        "IOMode": mode,
        "DataType": _type(binding.type),
        "Dimensions": [d if isinstance(d, int) else -1 for d in dims],
        "Location": "Device",
        "IsShapeInferenceIO": False,
        "ProfileInfo": [{**bounds, "Format": _format(binding.type)}] if mode == "Input" else [],
    }


def _by_x(dimensions: Sequence[int]) -> str:
    return "x".join(map(str, dimensions)) or "scalar"
