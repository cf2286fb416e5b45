"""IOBinding: inputs and outputs that are bound once, on the host or on a GPU, and run many times."""

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from miniinfer_cli.ort.faults import InvalidArgument, told_as
from miniinfer_cli.ort.lacking import refuse_member
from miniinfer_cli.ort.nodes import NodeArg
from miniinfer_cli.ort.types import numpy_type
from miniinfer_cli.ort.values import OrtValue, contents_of, expect_device, gpu_memory, is_on_gpu, write_into

Place = Callable[[Mapping[str, Any]], None]
"""Takes the outputs by name, which are the engine's again when it has returned."""
Run = Callable[[dict[str, Any], bool, Place], None]
"""Runs inputs by name, and hands on the outputs; the second argument: they may stay on the GPU."""


class Session(Protocol):
    """What a binding asks of the session that made it."""

    def get_inputs(self) -> Sequence[NodeArg]:
        """The inputs without a default."""

    def get_overridable_initializers(self) -> Sequence[NodeArg]:
        """The inputs with one."""

    def get_outputs(self) -> Sequence[NodeArg]:
        """The outputs."""


class IOBinding:
    """What a session runs on: arrays by the names of inputs, and where outputs go by their names. Made by ``io_binding()``."""

    def __init__(self, session: Session) -> None:
        self._session = weakref.ref(session)
        self._known_inputs = {a.name for a in (*session.get_inputs(), *session.get_overridable_initializers())}
        self._known_outputs = [a.name for a in session.get_outputs()]
        self._inputs: dict[str, Any] = {}
        self._targets: dict[str, tuple[str, int, Any]] = {}
        """Of each output that is wanted: the device, its number, and the array to write, or None for a new one."""
        self._results: dict[str, OrtValue] = {}

    def session(self) -> Session | None:
        """The session that made it, while that is there."""
        return self._session()

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        """Gives the input ``name`` an array of the host."""
        self._inputs[self._input(name)] = np.asarray(arr_on_cpu)

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Gives the input ``name`` what lies at an address, which must stay there."""
        self._inputs[self._input(name)] = _at(device_type, device_id, element_type, shape, buffer_ptr)

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        """Gives the input ``name`` a value."""
        self._inputs[self._input(name)] = contents_of(ortvalue)

    def bind_output(
        self,
        name: str,
        device_type: str = "cpu",
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Wants the output ``name``, as a new array on that device, or written at an address of the caller's."""
        target = None
        if buffer_ptr is not None:
            if element_type is None or shape is None:
                raise ValueError("`element_type` and `shape` belong to `buffer_ptr`: give them")
            target = _at(device_type, device_id, element_type, shape, buffer_ptr)
        self._targets[self._output(name)] = (expect_device(device_type), device_id, target)

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Wants the output ``name``, written into a value."""
        target = contents_of(ortvalue)
        on_gpu = is_on_gpu(target)
        self._targets[self._output(name)] = ("cuda" if on_gpu else "cpu", target.ordinal if on_gpu else 0, target)

    def synchronize_inputs(self) -> None:
        """Nothing: a run waits for what writes its inputs."""

    def synchronize_outputs(self) -> None:
        """Nothing: outputs are there when a run has ended."""

    def get_outputs(self) -> list[OrtValue]:
        """The outputs of the last run, in the order in which they were bound."""
        return [self._results[name] for name in self._targets if name in self._results]

    def copy_outputs_to_cpu(self) -> list[Any]:
        """The same as arrays of the host."""
        return [value.numpy() if value.is_tensor() else contents_of(value) for value in self.get_outputs()]

    def clear_binding_inputs(self) -> None:
        """Forgets the inputs."""
        self._inputs.clear()

    def clear_binding_outputs(self) -> None:
        """Forgets the outputs."""
        self._targets.clear()
        self._results.clear()

    def run(self, run: Run) -> None:
        """One run of what is bound. Raises RuntimeError where no output is, and what ``run`` raises."""
        if not self._targets:
            raise RuntimeError("Error in execution: no output is bound\n  hint: binding.bind_output(name)")

        def place(outputs: Mapping[str, Any]) -> None:
            self._results = {name: OrtValue(self._placed(name, outputs[name])) for name in self._targets}

        run(dict(self._inputs), any(device == "cuda" for device, _, _ in self._targets.values()), place)

    def __getattr__(self, name: str) -> Any:
        refuse_member(self, name)

    def _placed(self, name: str, output: Any) -> Any:
        """An output where it is wanted; what stays on the GPU is copied, for the engine writes there again."""
        device, ordinal, target = self._targets[name]
        on_gpu = is_on_gpu(output)
        with told_as(InvalidArgument):
            if target is None and device == "cpu":
                return gpu_memory(output.ordinal).fetch(output) if on_gpu else output
            if target is None and not on_gpu:
                return gpu_memory(ordinal).send(output)
            if target is None:
                target = gpu_memory(output.ordinal).empty(output.shape, output.dtype)
        if target.dtype != output.dtype or target.nbytes != output.nbytes:
            bound, made = f"{target.dtype}{list(target.shape)}", f"{output.dtype}{list(output.shape)}"
            raise InvalidArgument(f"output {name!r} is {made}, what it is bound to is {bound}")
        write_into(target, output)
        return target

    def _input(self, name: str) -> str:
        if name not in self._known_inputs:
            raise RuntimeError(f"there is no input {name!r}; the inputs are {', '.join(sorted(self._known_inputs))}")
        return name

    def _output(self, name: str) -> str:
        if name not in self._known_outputs:
            raise RuntimeError(f"Invalid output name: {name}; the outputs are {', '.join(self._known_outputs)}")
        return name


def _at(device_type: str, device_id: int, element_type: Any, shape: Sequence[int], address: int) -> Any:
    """The array that lies at an address, on the host or on a GPU."""
    kind, sizes = numpy_type(element_type), tuple(int(d) for d in shape)
    if expect_device(device_type) == "cuda":
        with told_as(InvalidArgument):
            return gpu_memory(device_id).at(address, sizes, kind)
    nbytes = int(np.prod(sizes, dtype=np.int64)) * kind.itemsize
    if not nbytes:
        return np.empty(sizes, kind)
    return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address)).view(kind).reshape(sizes)
