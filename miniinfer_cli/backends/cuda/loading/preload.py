"""Weights from the plan's file to the device: several readers, a ring of pinned buffers, asynchronous copies, digests on the way.

The weights section of a plan is laid out as the device's arena is, so this is a straight stream of chunks.
"""

import contextlib
import os
import queue
import threading

from engine_format import PlanError
from engine_format.layout import CHUNK_NBYTES, chunk_count
from engine_format.stored import PlanFile
from miniinfer_cli.backends.cuda.contract.protocols import Device
from miniinfer_cli.errors import PlanFileError
from miniinfer_cli.shortage import start_thread

_READERS = 12
_RING = 24  # buffers of one chunk each; two for each reader, so that one is read into while the other is copied
_USES = 4  # of each buffer, at least: pinning 4 MiB and letting them go takes as long as reading and copying them 15 times
_FEW = 4


class PinnedRing:
    """Pinned buffers of one chunk each, allocated once and lent to one preload after the other."""

    def __init__(self, device: Device, count: int = _RING) -> None:
        self.memory = device.allocate_pinned(count * CHUNK_NBYTES, "pinned memory for loading weights")
        self.count = count
        array = self.memory.array
        self.views = [array[i * CHUNK_NBYTES : (i + 1) * CHUNK_NBYTES].data for i in range(count)]

    def close(self) -> None:
        """Gives the memory back; may be called twice."""
        self.views.clear()
        self.memory.close()


def preload(device: Device, file: PlanFile, target: int, ring: PinnedRing | None = None) -> None:
    """Copies the weights of ``file`` to the address ``target`` and waits until they are there.

    Raises PlanFileError when the file is damaged. ``ring`` is one to use again; without it, one is made for the call.
    """
    start, nbytes = file.weights_range
    count = chunk_count(nbytes)
    if not count:
        return
    own = PinnedRing(device, buffers_for(count)) if ring is None else ring
    try:
        _Preload(device, file, target, own).run(start, nbytes, count)
    finally:
        if ring is None:
            own.close()


def buffers_for(chunks: int) -> int:
    """How many buffers a ring for so many chunks has: as many as serve it well, but none that is hardly used."""
    return min(_RING, max(chunks // _USES, _FEW), chunks)


class _Preload:
    def __init__(self, device: Device, file: PlanFile, target: int, ring: PinnedRing) -> None:
        self.device = device
        self.file = file
        self.target = target
        self.ring = ring
        self.errors: list[BaseException] = []
        self.stop = threading.Event()
        self.chunks: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self, start: int, nbytes: int, count: int) -> None:
        for chunk in range(count):
            self.chunks.put(chunk)
        readers = min(_READERS, self.ring.count, count)
        shares = [list(range(r, self.ring.count, readers)) for r in range(readers)]
        threads = [
            threading.Thread(target=self._read, args=(start, nbytes, share), name=f"miniinfer-preload-{n}")
            for n, share in enumerate(shares[1:], 1)
        ]
        try:
            for thread in threads:
                start_thread(thread)
            self._read(start, nbytes, shares[0])
            for thread in threads:
                thread.join()
        except BaseException:  # Ctrl-C, or no more threads: the buffers are not given back while somebody reads into them
            self.stop.set()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        if self.errors:
            error = self.errors[0]
            if isinstance(error, PlanError):
                raise PlanFileError(str(error), hint=error.hint).at(error.path) from None
            if isinstance(error, OSError):
                raise PlanFileError(f"cannot be read: {error.strerror}").at(self.file.path) from None
            raise error

    def _read(self, start: int, nbytes: int, share: list[int]) -> None:
        """One reader: takes chunks off the queue, each into the next of its buffers once the copy out of that has ended."""
        try:
            self.device.make_current()
            base = self.ring.memory.address
            with contextlib.ExitStack() as stack:
                stream = stack.enter_context(self.device.create_stream())
                events = [stack.enter_context(self.device.create_event()) for _ in share]
                stack.callback(stream.synchronize)  # nothing is on its way when the buffers go, whatever happens
                used = [False] * len(share)
                turn = 0
                while not self.stop.is_set():
                    try:
                        chunk = self.chunks.get_nowait()
                    except queue.Empty:
                        break
                    number = share[turn]
                    if used[turn]:
                        events[turn].synchronize()
                    offset = chunk * CHUNK_NBYTES
                    size = min(CHUNK_NBYTES, nbytes - offset)
                    view = self.ring.views[number][:size]
                    _read_exactly(self.file, view, start + offset)
                    self.file.verify(chunk, view)
                    stream.copy_to_device(self.target + offset, base + number * CHUNK_NBYTES, size)
                    stream.record(events[turn])
                    used[turn] = True
                    turn = (turn + 1) % len(share)
        except BaseException as error:
            self.errors.append(error)
            self.stop.set()


def _read_exactly(file: PlanFile, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        got = os.preadv(file.fileno(), [view[done:]], offset + done)
        if not got:
            raise PlanError("the file is cut short", offset=offset + done, path=file.path)
        done += got
