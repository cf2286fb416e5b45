"""``miniinfer devices``: what each GPU is, which libraries were found, and what is missing for what."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.outputs import Output, Source, check_outputs
from miniinfer_cli.cli.report import Printer, human_bytes, write_json
from miniinfer_cli.devices.inventory import Gpu, Inventory, take_inventory
from miniinfer_cli.runtime.cache_folder import default_cache

_FIGURES = {
    "h2d_pinned_gbps": ("Host to device, pinned", "GB/s"),
    "d2h_pinned_gbps": ("Device to host, pinned", "GB/s"),
    "h2d_pageable_gbps": ("Host to device, pageable", "GB/s"),
    "device_copy_gbps": ("Copy on the device (read + written)", "GB/s"),
    "launch_us": ("Launch of a kernel (host)", "us"),
    "graph_launch_us": ("Launch of a graph (host)", "us"),
    "graph_launch_and_wait_us": ("Launch of a graph and wait", "us"),
    "kernel_in_graph_us": ("Small kernel in a graph (device)", "us"),
    "bf16_tflops": ("Matrix product, bf16", "TFLOP/s"),
}


@click.command("devices")
@click.option(
    "--measure", is_flag=True, help="Measure bandwidths, launches and the matrix rate of each GPU, and keep the figures."
)
@flags.report_flags("the report")
def command(measure: bool, printer: Printer, json_file: Path | None) -> None:
    """Show the devices that plans can run on here."""
    cache = default_cache()
    figures = [] if cache is None else [Source(p, "what devices --measure found") for p in cache.glob("devices/*.json")]
    check_outputs([Output("--json", json_file, json=True)], figures)
    inventory = take_inventory(cache, measure=measure)
    printer.line("cpu: always there")
    if inventory.fault is not None:
        printer.line(f"cuda: not available: {inventory.fault}")
    for gpu in inventory.gpus:
        _print_gpu(printer, gpu)
    if measure and not inventory.gpus:
        printer.line("note: --measure has nothing to measure: there is no GPU that can be used")
    _print_libraries(printer, inventory)
    if json_file is not None:
        write_json(json_file, _document(inventory))


def _print_gpu(printer: Printer, gpu: Gpu) -> None:
    printer.line(
        f"cuda:{gpu.ordinal}: {gpu.name}, sm_{gpu.arch}, {gpu.multiprocessors} multiprocessors,"
        f" {human_bytes(gpu.free_memory)} of {human_bytes(gpu.total_memory)} free, {human_bytes(gpu.l2_nbytes)} L2,"
        f" driver for CUDA {gpu.driver}"
    )
    for name, (what, unit) in _FIGURES.items():
        value = gpu.ceilings.get(name)
        if value is not None:
            printer.line(f"  {what}: {value:.2f} {unit}")
    if not gpu.ceilings:
        printer.line("  (miniinfer devices --measure adds bandwidths and rates)")


def _print_libraries(printer: Printer, inventory: Inventory) -> None:
    printer.section("Libraries")
    for library in inventory.libraries:
        if library.found:
            printer.line(f"{library.name}: {library.version or 'version unknown'} ({library.path})")
        else:
            printer.line(f"{library.name}: missing, for {library.purpose}; pip install {library.package}")


def _document(inventory: Inventory) -> dict[str, Any]:
    return {
        "fault": inventory.fault,
        "gpus": [asdict(gpu) for gpu in inventory.gpus],
        "libraries": [
            {**asdict(entry), "path": None if entry.path is None else str(entry.path)} for entry in inventory.libraries
        ],
    }
