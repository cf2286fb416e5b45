"""``miniinfer devices``: what each GPU is, which libraries were found, and what is missing for what."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from miniinfer_cli.backends.ceilings import Ceilings
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.outputs import Output, Source, check_outputs
from miniinfer_cli.cli.report import Printer, write_json
from miniinfer_cli.devices.inventory import Inventory, take_inventory
from miniinfer_cli.report.figures import size_of
from miniinfer_cli.runtime.cache_folder import default_cache

_FIGURES = {
    "h2d_pinned_gbps": ("Host to device, pinned", "GB/s"),
    "d2h_pinned_gbps": ("Device to host, pinned", "GB/s"),
    "h2d_pageable_gbps": ("Host to device, pageable", "GB/s"),
    "memory_gbps": ("Copy in memory (read + written)", "GB/s"),
    "cache_gbps": ("Copy in the last cache (read + written)", "GB/s"),
    "launch_us": ("Launch of a kernel (host)", "us"),
    "graph_launch_us": ("Launch of a graph (host)", "us"),
    "graph_launch_and_wait_us": ("Launch of a graph and wait", "us"),
}


@click.command("devices")
@click.option(
    "--measure", is_flag=True, help="Measure bandwidths, launches and rates of each device, the CPU too, and keep the figures."
)
@flags.report_flags("the report")
def command(measure: bool, printer: Printer, json_file: Path | None) -> None:
    """Show the devices that plans can run on here."""
    cache = default_cache()
    figures = [] if cache is None else [Source(p, "what devices --measure found") for p in cache.glob("devices/*.json")]
    check_outputs([Output("--json", json_file, json=True)], figures)
    with printer.stages() as told:
        inventory = take_inventory(cache, measure=measure, told=told)
    printer.line(f"cpu: {inventory.cpu.name}, {inventory.cpu.cores} cores, {inventory.cpu.threads} threads by default")
    _print_ceilings(printer, inventory.cpu.ceilings, "Least step of the runtime")
    if inventory.fault is not None:
        printer.line(f"cuda: not available: {inventory.fault}")
    for gpu in inventory.gpus:
        printer.line(
            f"cuda:{gpu.ordinal}: {gpu.name}, sm_{gpu.arch}, {gpu.multiprocessors} multiprocessors,"
            f" {size_of(gpu.free_memory)} of {size_of(gpu.total_memory)} free, {size_of(gpu.l2_nbytes)} L2,"
            f" driver for CUDA {gpu.driver}"
        )
        _print_ceilings(printer, gpu.ceilings, "Small kernel in a graph (device)")
    if not measure and None in (inventory.cpu.ceilings, *(gpu.ceilings for gpu in inventory.gpus)):
        printer.line("(miniinfer devices --measure adds bandwidths and rates)")
    if measure and cache is None:
        printer.line("note: there is no cache folder to keep the figures in (MINIINFER_CACHE)")
    _print_libraries(printer, inventory)
    if json_file is not None:
        write_json(json_file, _document(inventory))


def _print_ceilings(printer: Printer, ceilings: Ceilings | None, step: str) -> None:
    if ceilings is None:
        return
    for name, (what, unit) in {**_FIGURES, "step_us": (step, "us")}.items():
        value = getattr(ceilings, name)
        if value is not None:
            printer.line(f"  {what}: {value:.2f} {unit}")
    for rate, value in sorted(ceilings.tflops.items()):
        unit, numbers = rate.split()
        told = f"{value:.1f} TFLOP/s" if value >= 1 else f"{1e3 * value:.1f} GFLOP/s"
        printer.line(f"  {unit.capitalize()} rate, {numbers}: {told}")


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
        "cpu": {**asdict(replace(inventory.cpu, ceilings=None)), "ceilings": _figures(inventory.cpu.ceilings)},
        "gpus": [{**asdict(replace(gpu, ceilings=None)), "ceilings": _figures(gpu.ceilings)} for gpu in inventory.gpus],
        "libraries": [
            {**asdict(entry), "path": None if entry.path is None else str(entry.path)} for entry in inventory.libraries
        ],
    }


def _figures(ceilings: Ceilings | None) -> dict[str, Any]:
    """By name, some under the names that they had first, too; nothing where none were measured."""
    if ceilings is None:
        return {}
    older = {"device_copy_gbps": ceilings.memory_gbps, "kernel_in_graph_us": ceilings.step_us}
    return {**ceilings.to_json(), **older, "bf16_tflops": ceilings.tflops.get("matrix bf16")}
