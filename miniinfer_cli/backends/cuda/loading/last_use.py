"""When something was last enqueued: what engines do in idle moments waits for all of them, since they share the interpreter."""

import time


class LastUse:
    """The moment, on the clock of ``time.monotonic``; any thread may note one."""

    def __init__(self) -> None:
        self.at = time.monotonic()

    def note(self) -> None:
        """Now."""
        self.at = time.monotonic()


OF_THE_PROCESS = LastUse()
