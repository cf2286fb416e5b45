"""msgpack read strictly: one document, no repeated keys, no extension types, memory in proportion to its length.

msgpack's reader takes the length that a list claims for the room to set aside, keeps the last of two equal keys, and gives
no positions. So a document is walked once without making anything, which proves every claimed length; what the format
has no use for comes out as ``Refused``, to be found where its value is looked at; and positions are found when asked for.
"""

from typing import Any

import msgpack


class Refused:
    """Stands in a parsed document for something that no plan may hold."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Fault(Exception):
    """Something wrong in a document. ``path`` leads there: list indices and map keys, from the outside in."""

    def __init__(self, message: str, *path: int | str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path: tuple[int | str, ...] = path
        self.hint = hint

    def under(self, *path: int | str) -> "Fault":
        """This fault, seen from further outside. Returns self."""
        self.path = (*path, *self.path)
        return self


class NotMsgpack(Exception):
    """The bytes are no msgpack document; ``offset`` is the byte of them where that shows."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset


def parse(document: Any) -> Any:
    """The one value that ``document`` holds: dicts with text keys, lists, str, bytes, int, float, bool, None, Refused.

    Raises NotMsgpack.
    """
    walker = _walker(document)
    try:
        walker.skip()
    except msgpack.OutOfData:
        raise NotMsgpack("the header ends in the middle of a value", walker.tell()) from None
    except msgpack.StackError:
        raise NotMsgpack("the header is nested too deeply", walker.tell()) from None
    except (ValueError, RecursionError):
        raise NotMsgpack("the header is not msgpack", walker.tell()) from None
    if walker.tell() != len(document):
        raise NotMsgpack("the header goes on after its end", walker.tell())
    try:
        return msgpack.unpackb(
            document, strict_map_key=False, object_pairs_hook=_pairs, ext_hook=_extension, use_list=True, raw=False
        )
    except UnicodeDecodeError as error:
        raise NotMsgpack("text is not UTF-8", bytes(document).find(error.object)) from None
    except (ValueError, RecursionError):
        raise NotMsgpack("the header holds a malformed timestamp", 0) from None


def locate(document: Any, path: tuple[int | str, ...]) -> int:
    """The byte of a parsable ``document`` where the value at ``path`` begins, or the last one on the way that there is."""
    walker = _walker(document)
    for step in path:
        here: int = walker.tell()
        try:
            if isinstance(step, int):
                if step >= walker.read_array_header():
                    return here
                for _ in range(step):
                    walker.skip()
            elif not _enter(walker, step):
                return here
        except (ValueError, msgpack.UnpackException):
            return here
    end: int = walker.tell()
    return end


def describe(value: Any) -> str:
    """A parsed value in a few words, for messages."""
    match value:
        case Refused():
            return value.reason
        case None:
            return "nil"
        case bool() | int() | float():
            return str(value)
        case str():
            return f"text {value[:40]!r}"
        case bytes():
            return f"{len(value)} bytes"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"a map of {len(value)}"
    return "a timestamp"


def _walker(document: Any) -> Any:
    walker = msgpack.Unpacker(max_buffer_size=max(len(document), 1), strict_map_key=False, raw=True)
    walker.feed(document)
    return walker


def _enter(walker: Any, key: str) -> bool:
    for _ in range(walker.read_map_header()):
        if walker.unpack() == key.encode():
            return True
        walker.skip()
    return False


def _pairs(pairs: list[tuple[Any, Any]]) -> Any:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if type(key) is not str:
            return Refused("a map with a key that is not text")
        if key in result:
            return Refused(f"a map with the key {key[:40]!r} twice")
        result[key] = value
    return result


def _extension(code: int, data: bytes) -> Refused:
    return Refused(f"an extension of type {code}")
