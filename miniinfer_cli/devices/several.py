"""Several GPUs of one host: what a flag or an argument names, and an engine on each; the weights are read from the file once."""

import contextlib
from collections.abc import Sequence
from typing import Protocol

from miniinfer_cli.backends.cuda.models.opening import device_count, driver_fault
from miniinfer_cli.devices.models import EVERY_GPU, gpu_of
from miniinfer_cli.errors import DeviceError, UsageError
from miniinfer_cli.runtime.at_once import at_once
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.wording import Wording

Devices = str | Sequence[str]
"""A device, ``cuda:all``, or several GPUs: a list, or one text with commas between them."""


def device_names(devices: Devices) -> tuple[str, ...]:
    """The devices that are named, one or several; ``cuda:all`` is every GPU that this process sees.

    ``auto`` alone stays what it is. Raises UsageError for what is no device, is named twice, or is no GPU among several; and
    DeviceError for ``cuda:all`` where there is none.
    """
    if isinstance(devices, str):
        named = [one.strip() for one in devices.split(",")]
    elif isinstance(devices, Sequence) and devices and all(isinstance(one, str) for one in devices):
        named = list(devices)
    else:
        raise _wrong(f"expected {EVERY_GPU}, or names of GPUs, got {devices!r}", _AS)
    if named == [EVERY_GPU]:
        return _every_gpu()
    if len(named) == 1 and named[0] in ("cpu", "auto"):
        return (named[0],)
    other = next((one for one in named if one in ("cpu", "auto")), None)
    if other is not None:
        raise _wrong(f"{other!r} is no GPU by name, and several devices are GPUs", _AS)
    numbers = [gpu_of(one) for one in named]
    twice = next((n for n in numbers if numbers.count(n) > 1), None)
    if twice is not None:
        raise _wrong(f"cuda:{twice} is named twice", _MORE)
    return tuple(f"cuda:{number}" for number in numbers)


_AS = Wording("devices='cuda:all', or devices=['cuda:0', 'cuda:1']", flags="--device cuda:all, or --device cuda:0,cuda:1")
_MORE = Wording(
    "for more work on one GPU give it more contexts: contexts=",
    flags="for more work on one GPU: --streams N of run and profile, --contexts N of serve",
)


def _wrong(told: str, hint: Wording) -> UsageError:
    return UsageError(Wording(f"devices: {told}", flags=f"--device: {told}"), hint=hint)


def _every_gpu() -> tuple[str, ...]:
    fault = driver_fault()
    if fault is not None:
        raise DeviceError(f"{EVERY_GPU}: no GPU can be used here: {fault}")
    return tuple(f"cuda:{number}" for number in range(device_count()))


class Opened(Protocol):
    """An engine, as far as others are opened beside it; see ``runtime.engine.Engine``."""

    device: str

    def beside(self, device: str) -> Engine:
        """See Engine."""


def open_beside(engine: Opened, names: Sequence[str], stack: contextlib.ExitStack) -> dict[str, Engine]:
    """An engine of ``engine``'s plan on each of the devices but its own, by name; ``stack`` closes them.

    They copy its weights from GPU to GPU, all at once. Raises UsageError where ``engine`` is on no GPU, and what opening raises.
    """
    others = [name for name in names if name != engine.device]
    if others and engine.device == "cpu":
        told = f"devices: the engine is on the cpu, and others were to be opened beside it on {', '.join(others)}"
        raise UsageError(told, hint="open it on one of the GPUs: load(plan, 'cuda:0')")
    opened: dict[str, Engine] = {}

    def open_one(number: int, *_: object) -> None:
        name = others[number]
        opened[name] = made = engine.beside(name)
        stack.callback(made.close)

    if others:
        at_once(len(others), open_one)
    return opened
