"""What a model shares with its programs and contexts. ``model.CudaModel`` has it."""

import threading
from collections.abc import Sequence
from typing import Any, Protocol

from miniinfer_cli.backends.cuda.arrays.counts import CaptureCounts
from miniinfer_cli.backends.cuda.arrays.device_array import DeviceArray
from miniinfer_cli.backends.cuda.arrays.transfers import Transfers
from miniinfer_cli.backends.cuda.contract.protocols import Device, Functions, Libraries, Memory, Stream
from miniinfer_cli.backends.cuda.contract.steps import Derived
from miniinfer_cli.backends.cuda.driver.fork_guard import ForkGuard
from miniinfer_cli.backends.cuda.loading.weights import DeviceWeights
from miniinfer_cli.ir import Array, Graph


class Shared(Protocol):
    """A model as its programs and contexts see it."""

    gpu: Device
    fork_guard: ForkGuard
    functions: Functions
    libraries: Libraries
    transfers: Transfers
    weights: DeviceWeights
    capture_lock: threading.Lock
    capture_counts: CaptureCounts

    def evaluate(self, derived: Derived) -> Memory:
        """Device memory with a derived form, computed by a program of its own."""

    def fetch(self, value: DeviceArray, stream: Stream | None = None) -> Array:
        """The contents of an array on the device. ``stream``: the one that writes the array, where it is ours."""

    def count_fetch(self, nbytes: int) -> None:
        """Notes a copy to the host for a host step."""

    def count_send(self, nbytes: int) -> None:
        """Notes a copy to the device of a host step's result."""


class Surroundings(Protocol):
    """A context as the host steps of its inferences see it."""

    @property
    def model(self) -> Shared:
        """The model that it belongs to."""

    @property
    def compute(self) -> Stream:
        """Its stream of work."""

    def run_nested(self, graph: Graph, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """The outputs of a branch, a loop's body or a late part."""
