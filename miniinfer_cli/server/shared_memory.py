"""Memory that clients share with the server: the protocol's system_shared_memory extension."""

import json
import mmap
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from miniinfer_cli.devices.registering import Registrar
from miniinfer_cli.ir import Array
from miniinfer_cli.server.faults import Refused
from miniinfer_cli.server.infer_request import from_bytes
from miniinfer_cli.server.infer_response import json_body
from miniinfer_cli.server.signature import Tensor

_FOLDER = Path("/dev/shm")  # where shm_open keeps them
_KEY = re.compile(r"/?([A-Za-z0-9_.-]{1,200})")
_MOST = 4096  # regions


@dataclass(frozen=True, slots=True)
class _Region:
    key: str
    offset: int
    memory: memoryview

    def to_json(self, name: str) -> dict[str, Any]:
        return {"name": name, "key": self.key, "offset": self.offset, "byte_size": len(self.memory)}


class Regions:
    """The regions that are registered. A key names a file of /dev/shm, and nothing else: no path, no link.

    Whoever may register one reads and writes it through the server: so only the server's own user's files are taken.
    ``registrar``: who makes GPUs copy from them where they lie. What a request looks at goes with that request.
    """

    def __init__(self, folder: Path = _FOLDER, registrar: Registrar | None = None) -> None:
        self._folder = folder
        self._registrar = registrar
        self._regions: dict[str, _Region] = {}
        self._seen: dict[tuple[Any, ...], Array] = {}

    def part(self, region: str, offset: int, nbytes: int) -> memoryview:
        """So many bytes of a region. Raises Refused where it is not registered, or is shorter."""
        found = self._known(region)
        if offset + nbytes > len(found.memory):
            raise Refused(400, f"shared memory region {region!r} has {len(found.memory)} bytes, not {offset} + {nbytes}")
        return found.memory[offset : offset + nbytes]

    def tensor(self, name: str, tensor: Tensor, shape: tuple[int, ...], place: tuple[str, int, int]) -> Array:
        """The tensor of this shape at a place; clients name the same places over and over. Raises Refused, UsageError."""
        key = (place, shape, tensor.datatype)
        seen = self._seen.get(key)
        if seen is None:
            seen = from_bytes(name, tensor, shape, self.part(*place))
            if not seen.flags.owndata and not seen.dtype.hasobject:  # a view, and no copy of what is there now
                if len(self._seen) >= _MOST:
                    self._seen.clear()
                self._seen[key] = seen
        return seen

    def answer(self, method: str, path: list[str], body: bytes) -> bytes:
        """Status, register and unregister. Raises Refused."""
        match method, path:
            case "GET", ["status"]:
                return json_body([r.to_json(name) for name, r in self._regions.items()])
            case "GET", ["region", name, "status"]:
                return json_body([self._known(name).to_json(name)])
            case "POST", ["region", name, "register"]:
                self._register(name, body)
                return b""
            case "POST", ["region", name, "unregister"]:
                self._regions.pop(name, None)
                self._forget()
                return b""
            case "POST", ["unregister"]:
                self._regions.clear()
                self._forget()
                return b""
        raise Refused(404, f"there is nothing at {'/'.join(path)!r} of the shared memory")

    def _forget(self) -> None:
        self._seen.clear()
        if self._registrar is not None:
            self._registrar.collect()

    def _known(self, name: str) -> _Region:
        found = self._regions.get(name)
        if found is None:
            raise Refused(400, f"there is no shared memory region {name!r}")
        return found

    def _register(self, name: str, body: bytes) -> None:
        try:
            asked = json.loads(body)
            key, offset, nbytes = asked["key"], asked.get("offset", 0), asked["byte_size"]
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Refused(400, "expected a JSON object with key, offset and byte_size") from None
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.strip("/.") == "":
            raise Refused(400, f"key: expected the name of a file in {self._folder}, got {str(key)[:80]!r}")
        if type(offset) is not int or type(nbytes) is not int or offset < 0 or nbytes < 1:
            raise Refused(400, "offset and byte_size: expected whole numbers")
        if name in self._regions:
            raise Refused(400, f"shared memory region {name!r} is registered already")
        if len(self._regions) >= _MOST:
            raise Refused(400, f"{_MOST} regions are registered already")
        self._regions[name] = _Region(key, offset, self._map(key, offset, nbytes))

    def _map(self, key: str, offset: int, nbytes: int) -> memoryview:
        path = self._folder / key.lstrip("/")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(400, f"key {key!r}: {error.strerror}") from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise Refused(400, f"key {key!r} is no shared memory of the server's own user")
            if offset + nbytes > found.st_size:
                raise Refused(400, f"key {key!r} has {found.st_size} bytes, not {offset} + {nbytes}")
            mapped = mmap.mmap(descriptor, offset + nbytes)
        except (OSError, ValueError, OverflowError) as error:
            raise Refused(400, f"key {key!r} cannot be mapped: {error}") from None
        finally:
            os.close(descriptor)
        registered = None if self._registrar is None else self._registrar.register(mapped)
        return (memoryview(mapped) if registered is None else registered.data)[offset:]
