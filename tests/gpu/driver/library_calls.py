"""What the tests of cuBLASLt and of cuDNN do alike. A case holds operands on the device, and knows its result."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from miniinfer_cli.backends.cuda.driver.cublaslt import PreparedMatmul
from miniinfer_cli.backends.cuda.driver.cudnn_prepared import PreparedGraph
from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream

Prepared = PreparedMatmul | PreparedGraph


def run(device: Device, stream: Stream, prepared: Prepared, case: Any) -> None:
    """Computes the case, and waits."""
    workspace = device.allocate(prepared.workspace_nbytes)
    prepared.enqueue(stream.handle, case.addresses, workspace.address)
    stream.synchronize()


def check_repeats(device: Device, stream: Stream, prepared: Prepared, case: Any) -> None:
    """The result is right, and the same bits every time."""
    bits = set()
    for _ in range(3):
        case.poison()
        run(device, stream, prepared, case)
        case.check()
        bits.add(case.result().tobytes())
    assert len(bits) == 1, f"{prepared.name} differs from run to run"


def check_under_capture(device: Device, stream: Stream, prepared: Prepared, cases: Sequence[Any]) -> None:
    """A graph with all cases gives each its result, every time it is launched."""
    workspace = device.allocate(prepared.workspace_nbytes)
    prepared.enqueue(stream.handle, cases[0].addresses, workspace.address)  # loads the kernels
    stream.synchronize()
    stream.begin_capture()
    for case in cases:
        prepared.enqueue(stream.handle, case.addresses, workspace.address)
    graph = stream.end_capture()
    for _ in range(2):
        for case in cases:
            case.poison()
        stream.launch_graph(graph)
        for case in cases:
            case.check()


def check_in_threads(
    device: Device,
    prepared: Prepared,
    make_case: Callable[[Stream], Any],
    bind: Callable[[int], None] = lambda handle: None,
    unbind: Callable[[int], None] = lambda handle: None,
) -> None:
    """Four threads, each with a stream, a case made on it, and a workspace of its own, do not disturb each other."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            device.make_current()
            with device.create_stream() as own:
                bind(own.handle)
                case = make_case(own)
                workspace = device.allocate(prepared.workspace_nbytes)
                for _ in range(20):
                    case.poison()
                    prepared.enqueue(own.handle, case.addresses, workspace.address)
                    case.check()
                unbind(own.handle)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
