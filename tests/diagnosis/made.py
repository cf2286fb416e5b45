"""Layers and runs as tests make them up, on a CPU and on a GPU of round figures."""

from typing import Any

from miniinfer_cli.backends.ceilings import Ceilings, Rate, Unit
from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.diagnosis.bounds import Run
from miniinfer_cli.measuring.layers import Layer

MATRIX = Rate(Unit.MATRIX, "f16")
VECTOR = Rate(Unit.VECTOR, "f32")
GPU = Ceilings(
    "a gpu",
    {"matrix f16": 1000.0, "vector f32": 20.0},
    memory_gbps=4000.0,
    step_us=1.0,
    h2d_pinned_gbps=50.0,
    d2h_pinned_gbps=25.0,
)
CPU = Ceilings("a cpu", {"matrix f16": 0.1, "vector f32": 0.01}, memory_gbps=10.0, step_us=5.0, threads=2)


def layer(label: str, ms: float, ceilings: Ceilings | None = GPU, *, gflop: float = 0.0, mb: float = 0.0, **more: Any) -> Layer:
    """A layer that took ``ms`` for so many 1e9 operations and 1e6 bytes; of which nobody knows where both are 0."""
    estimate = Estimate(int(gflop * 1e9), int(mb * 1e6)) if gflop or mb else None
    known: dict[str, Any] = {"kind": "Gemm", "tactic": "gemm", "rate": MATRIX, **more}
    roofline = None if ceilings is None or estimate is None else ceilings.roofline(estimate, known["rate"])
    times = {"median_ms": ms, "min_ms": ms, "max_ms": ms}
    return Layer(label=label, choice=None, estimate=estimate, roofline=roofline, **times, **known)


def run(*layers: Layer, **more: Any) -> Run:
    """A run of these layers on a GPU: copies and launches take nothing, and nothing is waited for, where it is not said."""
    total = sum(one.median_ms for one in layers)
    shared = [
        Layer(**{**{f: getattr(one, f) for f in Layer.__slots__}, "share": one.median_ms / total if total else 0.0})
        for one in layers
    ]
    known: dict[str, Any] = {"device": "cuda:0", "ceilings": GPU, "wall_ms": total, "latency_ms": total, "captured": True}
    known |= {"compute_ms": total, "enqueue_ms": 0.002} if more.get("device") != "cpu" else {"ceilings": CPU}
    return Run(**{**known, "layers": tuple(shared), **more})
