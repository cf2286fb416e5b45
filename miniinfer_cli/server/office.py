"""What is told of all plans together, whoever speaks to clients: figures, statistics, regions of shared memory."""

from collections import Counter
from collections.abc import Awaitable, Callable

from miniinfer_cli.server.app import JSON, Answer
from miniinfer_cli.server.contract import find_served
from miniinfer_cli.server.faults import expect_method
from miniinfer_cli.server.infer_response import json_body
from miniinfer_cli.server.metrics import Metrics
from miniinfer_cli.server.repository import Repository
from miniinfer_cli.server.shared_memory import Regions
from miniinfer_cli.server.statistics import model_statistics


async def _nothing() -> None:
    return None


class Office:
    """Answers for the plans of ``repository``. ``statuses``: answers by status of HTTP, which others count.

    ``gather`` is awaited before figures are told. ``regions``: None where no shared memory is taken.
    """

    def __init__(
        self,
        repository: Repository,
        statuses: Counter[int],
        regions: Regions | None,
        *,
        triton_metric_names: bool = False,
        gather: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self._repository = repository
        self._regions = regions
        self._gather = gather
        self._metrics = Metrics(repository, statuses, triton_names=triton_metric_names)

    async def answer(self, method: str, path: list[str], body: bytes) -> Answer | None:
        """The answer; None where there is nothing at ``path``. Raises Refused."""
        match path:
            case ["metrics"]:
                expect_method(method, "GET", f"/{'/'.join(path)}")
                await self._gather()
                text, kind = self._metrics.text()
                return 200, text, kind.encode()
            case ["v2", "models", *rest, "stats"]:
                expect_method(method, "GET", f"/{'/'.join(path)}")
                served = find_served(self._repository, rest)
                await self._gather()
                return 200, json_body(model_statistics(served)), JSON
            case ["v2", "systemsharedmemory", *rest] if self._regions is not None:
                return 200, self._regions.answer(method, rest, body), JSON
        return None
