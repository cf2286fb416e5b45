"""Opening a device begun early, while the modules that open a plan are imported: it brings as little as it can itself."""

import contextlib
import re
from typing import Any

_GPU = re.compile(r"auto|cuda(?::([0-9]{1,4}))?")


def head_start(device: Any, scheduling: Any = "auto") -> contextlib.AbstractContextManager[object]:
    """Begins to open what ``device`` names, where that is a GPU; the plan is to be opened before the ``with`` ends.

    How the host waits is said before anything is made on a GPU, so with another ``scheduling`` than ``auto`` nothing is begun.
    """
    found = _GPU.fullmatch(device) if isinstance(device, str) and scheduling == "auto" else None
    if found is None:
        return contextlib.nullcontext()
    from miniinfer_cli.backends.cuda.driver.head_start import HeadStart

    return HeadStart(int(found[1] or 0))
