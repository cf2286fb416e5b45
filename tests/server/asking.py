"""Requests to an application with no sockets: what it answers, and what it does when its client goes."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine_format import write_plan
from miniinfer_cli.server.app import CONNECTION, Application
from miniinfer_cli.server.office import Office
from miniinfer_cli.server.repository import Repository
from miniinfer_cli.server.settings import HttpLimits, PlanOptions
from miniinfer_cli.server.shared_memory import Regions
from miniinfer_cli.server.sources import Source
from miniinfer_cli.server.tracing import Tracer
from tests.emulation.engine import plan_of

# Each result tells whose it is; an index beyond the table is an error of one request alone.
MODEL = """graph main(x: f32[n,s], k: i64[n,1]) {
  t: f32[4] = const [0.0, 0.25, 0.5, 0.75]
  g = Gather(t, k)
  y = Add(x, g)
  return y, k
}"""


def write_model(path: Path, text: str = MODEL) -> Path:
    write_plan(plan_of(text), path)
    return path


def repository_of(*paths: Path, **options: Any) -> Repository:
    sources = [Source(path.stem, "1", path) for path in paths]
    return Repository(sources, PlanOptions("cpu", max_batch=4, warm_up=False, **options))


def application(
    repository: Repository,
    *,
    limits: dict[str, Any],
    regions: Regions | None = None,
    triton_metric_names: bool = False,
    tracer: Tracer | None = None,
    in_flags: bool = True,
) -> Application:
    statuses: Counter[int] = Counter()
    office = Office(repository, statuses, regions, triton_metric_names=triton_metric_names)
    return Application(
        repository, office, limits=HttpLimits(**limits), statuses=statuses, regions=regions, tracer=tracer, in_flags=in_flags
    )


def body_of(*numbers: int, width: int = 3, **more: Any) -> bytes:
    """A request as JSON whose rows begin with these numbers; row n looks up n % 4."""
    x = np.array([[n, *range(1, width)] for n in numbers], np.float32)
    inputs = [
        {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()},
        {"name": "k", "datatype": "INT64", "shape": [len(numbers), 1], "data": [n % 4 for n in numbers]},
    ]
    return json.dumps({"inputs": inputs, **more}).encode()


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Callable[..., Awaitable[None]],
    path: str,
    body: bytes | None = None,
    *,
    headers: Sequence[tuple[str, str]] = (),
    method: str = "",
    parts: Sequence[bytes] | None = None,
    gone: "asyncio.Event | None" = None,
    incoming: Any = None,
) -> Answer:
    """One request, whose body comes in one piece, or in ``parts``, after the last of which its client is gone or silent."""
    answer = Answer()
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts or ()]
    if parts is None:
        messages = [{"type": "http.request", "body": body or b"", "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {n.decode(): v.decode() for n, v in message["headers"]}
        else:
            answer.body += message["body"]

    scope: dict[str, Any] = {
        "type": "http",
        "method": method or ("GET" if body is None and parts is None else "POST"),
        "path": path,
        "headers": [(n.lower().encode(), v.encode()) for n, v in headers],
    }
    if incoming is not None:
        scope["extensions"] = {CONNECTION: incoming}
    await app(scope, receive, send)
    return answer
