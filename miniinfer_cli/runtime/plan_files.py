"""From a path to an open plan, with errors that a user may see."""

import errno
from pathlib import Path

from engine_format import Plan, PlanError, read_plan
from engine_format.reader import reopen_plan
from miniinfer_cli.errors import PlanFileError, unmappable
from miniinfer_cli.wording import Wording


def open_plan(path: "str | Path", digest: str | None = None) -> Plan:
    """Reads the plan at ``path``. Raises PlanFileError when there is none, or when it is not a sound plan.

    ``digest``: that of the plan which must lie there, else PlanFileError is raised, too.

    Raises OutOfMemoryError when it cannot be mapped for want of memory.
    """
    try:
        return read_plan(path) if digest is None else reopen_plan(str(path), digest)
    except PlanError as error:
        raise PlanFileError(str(error), hint=error.hint).at(str(path)) from error
    except FileNotFoundError:
        hint = Wording(
            "build it first: miniinfer_cli.build(model, plan)", flags="build it first: miniinfer build model.onnx -o model.plan"
        )
        raise PlanFileError("no such file", hint=hint).at(str(path)) from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise unmappable(path) from None
        raise PlanFileError(f"cannot be read: {error.strerror}").at(str(path)) from None
