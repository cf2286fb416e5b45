"""Opening a device begun early, while the modules that open a plan are imported: it brings as little as it can itself."""

import contextlib
import os
import re
from pathlib import Path
from typing import Any

from engine_format import Plan
from engine_format.layout import MAGIC

_GPU = re.compile(r"auto|cuda(?::([0-9]{1,4}))?")


def head_start(source: Any, device: Any, scheduling: Any = "auto") -> contextlib.AbstractContextManager[object]:
    """Begins to open what ``device`` names, where that is a GPU; the plan ``source`` is to be opened before the ``with`` ends.

    Not for what is no plan: a process that has started CUDA cannot hand it to its children. And how the host waits is said before
    anything is made on a GPU, so with another ``scheduling`` than ``auto`` nothing is begun.
    """
    found = _GPU.fullmatch(device) if isinstance(device, str) and scheduling == "auto" else None
    if found is None or not _is_plan(source):
        return contextlib.nullcontext()
    from miniinfer_cli.backends.cuda.driver.head_start import HeadStart

    return HeadStart(int(found[1] or 0))


def _is_plan(source: Any) -> bool:
    """Whether it is a plan in memory, or a file that begins as one."""
    if not isinstance(source, (str, os.PathLike)):
        return isinstance(source, Plan)
    with contextlib.suppress(OSError, ValueError, TypeError):  # for a name that is none
        path = Path(source)
        if path.is_file():
            with path.open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
    return False
