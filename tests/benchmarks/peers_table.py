"""What several processes measured of a cell as one row, and rows as a table: ratios to the best peer and to the floor."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

PEERS = ("eager", "graph", "compile", "max-autotune", "ort", "ort graph")
# The best peer of a cell, and its ms, on an H200 with PyTorch 2.11 and ONNX Runtime 1.31 in November 2026.
KNOWN: Mapping[tuple[str, str, int], tuple[str, float]] = {
    ("resnet50", "f16", 1): ("compile", 0.421),
    ("resnet50", "f16", 64): ("compile", 2.51),
    ("resnet50", "tf32", 1): ("compile", 0.568),
    ("resnet50", "tf32", 64): ("compile", 4.58),
    ("bert_base", "f16", 1): ("compile", 0.598),
    ("bert_base", "f16", 64): ("eager", 4.07),
    ("bert_base", "tf32", 1): ("compile", 0.864),
    ("bert_base", "tf32", 64): ("eager", 7.84),
    ("gpt2", "f16", 1): ("compile", 0.623),
    ("gpt2", "f16", 64): ("compile", 5.56),
    ("gpt2", "tf32", 64): ("compile", 10.5),
    ("mobilenet_v2", "f16", 1): ("compile", 0.285),
    ("mobilenet_v2", "f16", 64): ("compile", 1.45),
    ("efficientnet_b0", "f16", 1): ("compile", 0.486),
    ("efficientnet_b0", "f16", 64): ("compile", 2.31),
    ("vit_b_16", "f16", 1): ("compile", 0.614),
    ("vit_b_16", "f16", 64): ("graph", 6.64),
}
ALLOWED = 1.5
"""An error may be so many times PyTorch's own in the same precision, as tests everywhere allow."""
LEAST_ALLOWED = 1e-5


def floor_ms(flops: float, nbytes: float, tflops: float | None, gbps: float) -> float | None:
    """The longer of two times in ms; None where the peak is not known."""
    return None if not tflops else max(flops / tflops / 1e9, nbytes / gbps / 1e6)


def merged(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of several processes' rows of a cell: medians of times, the largest errors, all failures."""

    def of_all(key: str, how: Callable[[list[float]], float]) -> dict[str, float]:
        names = dict.fromkeys(name for row in rows for name in row[key])
        return {name: how([row[key][name] for row in rows if name in row[key]]) for name in names}

    floors = [row["floor_ms"] for row in rows if row["floor_ms"] is not None]
    return {
        **rows[0],
        "processes": len(rows),
        "ms": of_all("ms", statistics.median),
        "error": of_all("error", max),
        "failed": {peer: why for row in rows for peer, why in row["failed"].items()},
        "floor_ms": min(floors, default=None),
        "waiting_ms": statistics.median(row["waiting_ms"] for row in rows),
    }


def best_peer(row: Mapping[str, Any]) -> tuple[str, float] | None:
    """The fastest peer of a row, and its ms; None where no peer ran."""
    return min(((p, row["ms"][p]) for p in PEERS if p in row["ms"]), key=lambda found: found[1], default=None)


def faults_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What keeps a table from being used: wrong outputs, cells without the peer to beat."""
    found = []
    for row in rows:
        cell = f"{row['model']} {row['dtype']} b{row['batch']}"
        own = min((row["error"][p] for p in ("eager", "graph") if p in row["error"]), default=0.0)
        if not row["error"]["miniinfer"] <= max(ALLOWED * own, LEAST_ALLOWED):
            found.append(f"{cell}: error {row['error']['miniinfer']:.1e}, PyTorch's own {own:.1e}")
        known = KNOWN.get((row["model"], row["dtype"], row["batch"]))
        if best_peer(row) is None:
            found.append(f"{cell}: no peer ran")
        elif known is not None and known[0] not in row["ms"]:
            why = row["failed"].get(known[0], "it did not run")
            found.append(f"{cell}: without {known[0]}, the best peer before ({known[1]:g} ms): {why}")
    return found


def line_of(row: Mapping[str, Any]) -> str:
    """A row in a line."""
    times = ", ".join(f"{name} {ms:.3f}" for name, ms in row["ms"].items())
    failed = "".join(f"; no {peer}: {why}" for peer, why in row["failed"].items())
    return f"{row['model']} {row['dtype']} b{row['batch']}: {times} ms, error {row['error']['miniinfer']:.1e}{failed}"


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown: ms of each, how many times the best peer's time and the floor they are."""
    columns = [p for p in PEERS if any(p in row["ms"] for row in rows)]
    head = [
        "model, precision",
        "batch",
        *columns,
        "miniinfer",
        "x best peer",
        "x floor",
        "error (PyTorch's)",
        "processes",
        "date",
    ]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        ours, best, floor = row["ms"]["miniinfer"], best_peer(row), row["floor_ms"]
        own = row["error"].get("eager")
        cells = [
            f"{row['model']} {row['dtype']}", str(row["batch"]),
            *(f"{row['ms'][p]:.3f}" if p in row["ms"] else "-" for p in columns),
            f"{ours:.3f}",
            "-" if best is None else f"{ours / best[1]:.2f}", "-" if not floor else f"{ours / floor:.2f}",
            f"{row['error']['miniinfer']:.1e}" + ("" if own is None else f" ({own:.1e})"),
            str(row.get("processes", 1)), row["date"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    versions = sorted({f"{name} {v}" for row in rows for name, v in row["versions"].items()})
    devices = sorted({row["device"] for row in rows})
    return "\n".join([*lines, "", f"ms of wall time per inference on {', '.join(devices)}; {', '.join(versions)}.", ""])
