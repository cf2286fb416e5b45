"""The JSON files that trtexec writes, in the files that are there."""

import json
from pathlib import Path
from typing import Any

from miniinfer_cli.cli.outputs import is_regular
from miniinfer_cli.cli.report import finite, write_json
from miniinfer_cli.errors import unwritable


def export(path: Path, document: Any) -> None:
    """Writes a document as ``write_json`` does, but over what a file that is there holds: it stays the same file.

    A caller may have opened it before, to read from it what is written. Raises UsageError when the file cannot be written,
    OutOfMemoryError when the disk is full.
    """
    if not is_regular(path):
        write_json(path, document)
        return
    try:
        with path.open("r+b") as file:
            file.truncate()
            file.write(json.dumps(finite(document), indent=2, allow_nan=False).encode() + b"\n")
    except OSError as error:
        raise unwritable(error, path) from None
