"""What a worker of pytest-xdist tells of a test: how it ended, and nothing that goes without saying.

That a test begins, and that its fixtures were made and taken down, is half of all messages. Each takes some 0.3 ms of both
processes: 16 s of processor time for twenty thousand tests.
"""

from typing import Any

import pytest


def tell_less(config: pytest.Config) -> None:
    """Leaves these messages out; does nothing where this process is no worker, or xdist is none that is known."""
    worker = next((p for p in config.pluginmanager.get_plugins() if type(p).__name__ == "WorkerInteractor"), None)
    send = getattr(worker, "sendevent", None)
    if worker is None or send is None:
        return

    def send_news(name: str, **told: Any) -> None:
        report = told.get("data", {})
        goes_without_saying = name == "testreport" and report.get("outcome") == "passed" and report.get("when") != "call"
        if name != "logstart" and not goes_without_saying:
            send(name, **told)

    worker.sendevent = send_news
