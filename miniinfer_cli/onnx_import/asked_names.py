"""Names that a caller gives of values and nodes of a model: what is said of one that does not fit."""

import difflib
from collections.abc import Collection, Sequence

from miniinfer_cli.errors import UsageError
from miniinfer_cli.wording import joined


def refusal(option: str, told: str, hint: str = "") -> UsageError:
    """The error for what was given as ``option``, in both wordings where that is a ``Wording``."""
    return UsageError(joined(": ", [option, told]), hint=hint)


def expect_names(option: str, wanted: Collection[str], known: Sequence[str]) -> None:
    """Raises UsageError for the first of ``wanted`` that is not ``known``, with names that are like it."""
    for name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3)
            hint = f"did you mean {' or '.join(close)}?" if close else ""
            raise refusal(option, f"nothing in the model is named {name!r}", hint)
