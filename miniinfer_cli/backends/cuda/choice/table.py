"""Tactic records by signature, of a plan's section and of a timing cache; the nearest where M alone differs."""

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from engine_format import RecordChooser, TacticRecord
from miniinfer_cli.backends.choosing import Chooser, Found
from miniinfer_cli.backends.cuda.choice.signature import family, m_ratio

FARTHEST = 2.0
"""By how much M may be larger or smaller than what was tuned."""


class RecordTable:
    """What a plan holds for a GPU, then what a timing cache does. Thread-safe.

    Records that only say that the heuristic was best choose nothing, but where they spare a library the search for its way.
    """

    def __init__(self, plan: Sequence[TacticRecord] = (), cache: Sequence[TacticRecord] = ()) -> None:
        self._sources = (
            _Source(plan, Chooser.PLAN, Chooser.PLAN_NEAR),
            _Source(cache, Chooser.CACHE, Chooser.CACHE_NEAR),
        )
        self._lock = threading.Lock()
        self._passed_over: dict[tuple[Chooser, str], str] = {}

    def find(self, signature: str) -> Iterator[Found]:
        """The exact signature first, of the plan and then of the cache; then the nearest of each."""
        exact = [source.exact(signature) for source in self._sources]
        yield from (found for found in exact if found is not None)
        if not any(exact):
            for source in self._sources:
                yield from source.near(signature)

    def pass_over(self, found: Found, reason: str) -> None:
        """Notes a record that cannot be taken; of a near one that is nothing to tell of."""
        if found.chooser in (Chooser.PLAN, Chooser.CACHE):
            with self._lock:
                self._passed_over[found.chooser, found.record.signature] = reason

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of records that were found and not taken, for each source and reason once."""
        with self._lock:
            counts: dict[tuple[Chooser, str], int] = defaultdict(int)
            for (chooser, _), reason in self._passed_over.items():
                counts[chooser, reason] += 1
        return tuple(
            f"{count} tactic record{'s' * (count > 1)} of the {chooser} passed over ({reason}): miniinfer tune makes new ones"
            for (chooser, reason), count in counts.items()
        )


class _Source:
    def __init__(self, records: Sequence[TacticRecord], chooser: Chooser, near: Chooser) -> None:
        self._known = {r.signature: r for r in records}
        self._chooser, self._near = chooser, near

    def exact(self, signature: str) -> Found | None:
        record = self._known.get(signature)
        chooses = record is not None and (record.chosen_by is RecordChooser.TIMED or bool(record.opaque))
        return Found(record, self._chooser) if record is not None and chooses else None

    @cached_property
    def _families(self) -> Mapping[str, list[TacticRecord]]:
        families: dict[str, list[TacticRecord]] = defaultdict(list)
        for record in self._known.values():
            if record.chosen_by is RecordChooser.TIMED:
                families[family(record.signature)].append(record)
        return families

    def near(self, signature: str) -> Iterator[Found]:
        """Those of other M within reach, the nearest first."""
        if signature in self._known:
            return
        ratios = ((m_ratio(signature, r.signature), r) for r in self._families.get(family(signature), ()))
        reach = [(max(ratio, 1 / ratio), r.signature, r) for ratio, r in ratios if ratio]
        for distance, _, record in sorted(reach, key=lambda item: item[:2]):
            if distance <= FARTHEST:
                yield Found(record, self._near)
