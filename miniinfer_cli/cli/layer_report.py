"""The report of layers: a table of the slowest, sums by operation, and where an inference goes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from miniinfer_cli.cli.report import Printer
from miniinfer_cli.measuring.account import Account, LayerProfile
from miniinfer_cli.measuring.layers import Layer
from miniinfer_cli.measuring.metrics import Summary
from miniinfer_cli.report.figures import size_of

_NAMED = 2  # nodes of the model that a row names


def print_layers(printer: Printer, profile: LayerProfile, top: int, summary: Summary) -> None:
    """The ``top`` slowest layers, all operations, and the account beside the ``summary`` of the run."""
    _print_table(printer, profile, top)
    _print_kinds(printer, profile.layers)
    _print_account(printer, profile.account)
    _print_sum(printer, profile.layers, summary)


def _print_table(printer: Printer, profile: LayerProfile, top: int) -> None:
    layers = profile.layers
    printer.section("Time by node")
    slowest = sorted(layers, key=lambda layer: -layer.median_ms)[:top]
    columns = _columns(layers, profile.ceilings is not None and profile.ceilings.threads is None)
    printer.table(list(columns), [[cell(layer) for cell in columns.values()] for layer in slowest])
    if len(layers) > top:
        rest = sum(layer.median_ms for layer in layers) - sum(layer.median_ms for layer in slowest)
        printer.line(f"{len(layers) - top} more nodes: {rest:.4f} ms")
    for layer in slowest:
        for kernel in (k for k in layer.kernels if k.local_nbytes):
            told = f"{size_of(kernel.local_nbytes)} a thread, by kernel {kernel.kernel} of {layer.label}"
            printer.line(f"Local memory: {told}")


def _columns(layers: Sequence[Layer], large: bool) -> dict[str, Any]:
    """What each column shows of a layer; those that would be empty are left out. ``large``: rates are of a GPU."""
    scale, rate = (1.0, "TFLOP/s") if large else (1e3, "GFLOP/s")
    columns: dict[str, tuple[Any, bool]] = {
        "node": (lambda layer: layer.label, True),
        "of": (_origins, any(layer.origins != (layer.label,) for layer in layers)),
        "operation": (lambda layer: layer.kind, True),
        "how": (lambda layer: layer.how, True),
        # On a CPU there is nothing to choose, and in a plan that nobody tuned no time that was measured then.
        "chosen by": (lambda layer: layer.choosers, any(layer.chooser for layer in layers)),
        "tuned us": (lambda layer: _number(layer.tuned_us, 1), any(layer.tuned_us is not None for layer in layers)),
        "GB/s": (lambda layer: _number(layer.gbps, 1), any(layer.gbps is not None for layer in layers)),
        rate: (lambda layer: _number(layer.tflops, 1, scale), any(layer.tflops is not None for layer in layers)),
        "% of best": (lambda layer: _number(layer.efficiency, 0, 100), any(layer.roofline for layer in layers)),
        "bound by": (lambda layer: str(layer.bound or ""), any(layer.roofline for layer in layers)),
        "gap us": (lambda layer: _number(layer.gap_ms, 1, 1e3), any(layer.gap_ms is not None for layer in layers)),
        "median ms": (lambda layer: layer.median_ms, True),
        "%": (lambda layer: 100 * layer.share, True),
    }
    return {name: cell for name, (cell, shown) in columns.items() if shown}


def _origins(layer: Layer) -> str:
    """The first nodes of the model that it computes, and how many more."""
    if layer.origins == (layer.label,):
        return ""
    more = len(layer.origins) - _NAMED
    return ", ".join(layer.origins[:_NAMED]) + (f" + {more}" if more > 0 else "")


def _number(value: float | None, decimals: int, scale: float = 1.0) -> str:
    return "" if value is None else f"{scale * value:.{decimals}f}"


def _print_kinds(printer: Printer, layers: Sequence[Layer]) -> None:
    total = sum(layer.median_ms for layer in layers) or 1.0
    kinds: dict[str, list[float]] = defaultdict(list)
    for layer in layers:
        kinds[layer.kind].append(layer.median_ms)
    printer.section("Time by operation")
    ordered = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows = [(kind, len(times), sum(times), 100 * sum(times) / total) for kind, times in ordered]
    printer.table(("operation", "nodes", "sum ms", "%"), rows)


def _print_account(printer: Printer, account: Account) -> None:
    printer.section("Where an inference goes")
    rows = [(part, ms, 100 * ms / account.whole_ms) for part, ms in account.rows() if ms]
    printer.table(("part", "median ms", "%"), rows)
    printer.line(f"The whole: {account.whole_ms:.4f} ms, median of {account.count} that were waited for; nodes by {account.way}")


def _print_sum(printer: Printer, layers: Sequence[Layer], summary: Summary) -> None:
    """Times of nodes are medians of a run of their own, each with a look at the clock: they need not add up."""
    total, whole = sum(layer.median_ms for layer in layers), summary.latency.median
    others = summary.sharing - 1
    other = f", which shared the machine with {others} more stream{'s' * (others > 1)}" if others else ""
    printer.line(
        f"Sum of the nodes: {total:.4f} ms, timed one by one; median latency of a whole inference: {whole:.4f} ms{other}"
        f" (difference {total - whole:+.4f} ms)"
    )
