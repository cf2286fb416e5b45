"""What a replica of Ray Serve is: an engine and a Batcher behind the Open Inference Protocol, and behind handles."""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import options_of
from miniinfer_cli.integrations.ray_resources import assigned
from miniinfer_cli.integrations.requests import infer
from miniinfer_cli.server.app import Application
from miniinfer_cli.server.office import Office
from miniinfer_cli.server.repository import Repository
from miniinfer_cli.server.settings import HttpLimits, PlanOptions
from miniinfer_cli.server.sources import source_of

# For which the event loop may keep a batch from beginning: Python's own 5 ms are longer than most batches. A server's own, which
# is shorter (`server/settings.py`), costs a tenth here, where the loop also does what Ray asks of it for each request.
_SWITCH_S = 5e-4


class PlanReplica:
    """Answers for one plan; see ``ray.deployment``, whose arguments these are."""

    def __init__(
        self,
        plan: str | Plan,
        max_batch: int | None,
        max_delay_ms: float,
        name: str | None,
        device: str,
        options: Mapping[str, Any],
    ) -> None:
        sys.setswitchinterval(_SWITCH_S)
        device, chosen = assigned(device, options)
        engine: DeviceOptions = options_of(chosen)
        source = source_of(plan, name)
        served = PlanOptions(device, max_batch, max_delay_ms=max_delay_ms, engine=engine)
        self._repository = Repository([source], served)
        (self._served,) = self._repository
        statuses: Counter[int] = Counter()
        office = Office(self._repository, statuses, None)
        self._app = Application(self._repository, office, limits=HttpLimits(), statuses=statuses, in_flags=False)

    async def __call__(self, request: Request) -> Response:
        """Answers a ``request`` of the protocol. Where its sender goes, Ray cancels this, and with it what waits."""
        scope = dict(request.scope)
        root = scope.get("root_path", "")
        if root and scope["path"].startswith(root):
            scope["path"] = scope["path"][len(root) :] or "/"
        answer = _Answer()
        await self._app(scope, request.receive, answer.send)
        return answer.response()

    async def infer(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs by name for these ``inputs`` by name, for handles.

        Raises what ``Batcher.submit`` raises, and what the request fails with.
        """
        return await infer(self._served.current, inputs)

    @property
    def name(self) -> str:
        """The model's name."""
        return self._served.name

    async def stats(self) -> dict[str, Any]:
        """The figures of the Batcher, for handles; see docs/batching.md."""
        return self._served.current.stats()

    def __del__(self) -> None:
        repository = getattr(self, "_repository", None)
        if repository is not None:
            repository.close()


class _Answer:
    """Takes an answer of an ASGI application, whose body comes in one piece."""

    def __init__(self) -> None:
        self._status = 499  # of one that was never sent: its sender is gone
        self._headers: dict[str, str] = {}
        self._body = b""

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self._body += message.get("body", b"")

    def response(self) -> Response:
        return Response(self._body, self._status, self._headers)
