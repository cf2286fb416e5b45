"""Documents of results that were kept: JSON files of unknown make."""

import json
from pathlib import Path
from typing import Any

from miniinfer_cli.errors import UsageError, refused
from miniinfer_cli.pipes import pipe_contents

_MOST_NBYTES = 256 << 20


def read_document(path: Path, hint: str, contents: bytes | None = None) -> Any:
    """What the file at ``path`` holds; ``contents``: its bytes, where they were read already. ``hint``: what it should be.

    Raises UsageError where it cannot be read, is larger than any result, or is no JSON.
    """
    if contents is None:
        try:
            contents = pipe_contents(path)
            if contents is None:
                with path.open("rb") as file:
                    contents = file.read(_MOST_NBYTES + 1)
        except OSError as error:
            raise refused(error, f"cannot be read: {error.strerror}", path) from None
    try:
        if len(contents) > _MOST_NBYTES:
            raise UsageError(f"is larger than {_MOST_NBYTES >> 20} MiB, which no result is", hint=hint)
        return json.loads(contents)
    except ValueError as error:
        raise UsageError(f"is no JSON: {error}", hint=hint).at(str(path)) from None
    except RecursionError:
        raise UsageError("is nested more deeply than any result", hint=hint).at(str(path)) from None
    except UsageError as error:
        raise error.at(str(path)) from None
