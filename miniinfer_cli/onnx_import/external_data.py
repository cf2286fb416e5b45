"""Tensor data in files beside the model: mapped, never read, and never from outside the model's folder."""

import errno
import mmap
import os
import stat
from pathlib import Path
from typing import Any

from miniinfer_cli.errors import ModelError, unmappable
from miniinfer_cli.pipes import pipe_contents


class ExternalFiles:
    """The data files of one model, each mapped once. ``folder`` is None where the model came with no place on disk."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._mapped: dict[str, Any] = {}

    def range(self, entries: dict[str, str], nbytes: int) -> tuple[Any, str]:
        """The ``nbytes`` bytes that a tensor's external_data entries describe, and a name for them (``file@offset``).

        Raises ModelError when the file is outside the folder, missing, or too short, or an entry makes no sense.
        """
        location = entries.get("location", "")
        offset = _number(entries, "offset", 0)
        length = _number(entries, "length", nbytes)
        if length != nbytes:
            raise ModelError(f"its data in {location!r} is {length} bytes long, the tensor takes {nbytes}")
        data = self._open(location)
        if offset + nbytes > len(data):
            raise ModelError(
                f"its data is bytes {offset} to {offset + nbytes} of {location!r}, which has {len(data)}",
                hint="the data file is incomplete or belongs to another model; copy or export it again",
            )
        return data[offset : offset + nbytes], f"{location}@{offset}"

    def _open(self, location: str) -> Any:
        if location not in self._mapped:
            path = self._contained(location)
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise ModelError(f"its data file {str(path)!r} is not a regular file")
                self._mapped[location] = map_file(path)
            except OSError as error:
                if error.errno == errno.ENOMEM:
                    raise unmappable(path) from None
                raise ModelError(
                    f"its data file {str(path)!r} cannot be opened: {error.strerror}",
                    hint="models over 2 GiB come as several files; keep them together",
                ) from None
        return self._mapped[location]

    def _contained(self, location: str) -> Path:
        if self._folder is None:
            raise ModelError(
                f"its data is in the file {location!r}, and a model given as bytes has no folder",
                hint="give the path of the model, or the folder of its data",
            )
        folder = Path(os.path.realpath(self._folder))
        if not location or "\0" in location:
            raise ModelError(f"its data is in a file named {location!r}")
        path = Path(os.path.realpath(folder / location))  # unlike resolve(), no RuntimeError for a loop of links
        if Path(location).is_absolute() or not path.is_relative_to(folder):
            raise ModelError(
                f"its data is in {location!r}, outside the model's folder {str(folder)!r}",
                hint="put the data file beside the model; links out of the folder are not followed",
            )
        return path


def map_file(path: Path) -> Any:
    """A read-only view of a file's bytes; pages are read when touched, a pipe to its end at once.

    Raises OutOfMemoryError for want of memory, else OSError.
    """
    contents = pipe_contents(path)
    if contents is not None:
        return memoryview(contents)
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return memoryview(b"")
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise unmappable(path) if error.errno == errno.ENOMEM else error from None


def _number(entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise ModelError(f"the {key} of its external data is {text!r}, not a number of bytes")
    return int(text)
