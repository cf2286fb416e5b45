"""What is logged while a test runs, for those that ask: pytest's own way of it takes half a millisecond of every test."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Logged(logging.Handler):
    """What reached the root logger, warnings and worse unless within ``at_level``."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps the record."""
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        """One of each record, without a traceback."""
        return [r.getMessage() for r in self.records]

    @property
    def text(self) -> str:
        """Line by line, with tracebacks."""
        return "\n".join(map(self.format, self.records))

    @contextmanager
    def at_level(self, level: int) -> Iterator[None]:
        """What is of this level or above is logged within."""
        root = logging.getLogger()
        before = root.level
        root.setLevel(level)
        try:
            yield
        finally:
            root.setLevel(before)
