"""Engines on the emulated device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine_format import Plan, read_plan, write_plan
from miniinfer_cli.backends.choosing import Policy
from miniinfer_cli.backends.cuda.choice.stored import read_timing_cache
from miniinfer_cli.backends.cuda.contexts.context import ContextOptions
from miniinfer_cli.backends.cuda.contract.protocols import Libraries
from miniinfer_cli.backends.cuda.models.model import CudaModel
from miniinfer_cli.backends.interface import DeviceOptions, LoadedModel, LoadModel
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.freeze import freeze
from miniinfer_cli.runtime.engine import Engine
from tests.emulation.device import EmulatedDevice, EmulatedFunctions
from tests.emulation.libraries import NoLibraries
from tests.graph_text import typed_graph


def plan_of(text: str, *, written_to: Path | None = None) -> Plan:
    """The plan of a graph given as text, in memory, or opened from a file that it is ``written_to``."""
    plan = freeze(typed_graph(text))
    if written_to is None:
        return plan
    write_plan(plan, written_to)
    return read_plan(written_to)


def load_emulated(
    device: EmulatedDevice | None = None, libraries: Libraries | None = None, functions: EmulatedFunctions | None = None
) -> LoadModel:
    """Loads every model on an emulated device: for ``Engine(load=...)``, or in the place of devices.opening.load_model.

    Without a ``device`` on one of its own, of the number that its name has.
    """

    def load_model(
        graph: Graph, name: str, options: DeviceOptions, recorded: Mapping[str, Any], beside: LoadedModel | None = None
    ) -> CudaModel:
        number = name.partition(":")[2]
        model = CudaModel(
            graph,
            device or EmulatedDevice(ordinal=int(number or 0)),
            functions or EmulatedFunctions(),
            libraries or NoLibraries(),
            tf32=bool(recorded.get("tf32", True)),
            options=ContextOptions(cuda_graph=options.cuda_graph, overlap=options.overlap, pdl=options.pdl),
            policy=Policy(options.tactics, frozenset(options.disable_tactics)),
            beside=beside if isinstance(beside, CudaModel) else None,
        )
        if options.timing_cache is not None:
            model.use_timing_cache(read_timing_cache(options.timing_cache))
        return model

    return load_model


def open_emulated(
    plan: Plan, device: EmulatedDevice | None = None, *, libraries: Libraries | None = None, options: DeviceOptions | None = None
) -> Engine:
    """The plan on an emulated device, without libraries unless given some."""
    return Engine(plan, "cuda:0", options=options or DeviceOptions(), load=load_emulated(device, libraries))
