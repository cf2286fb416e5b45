"""The keys of a JSON document, each read as what it is to be: files are of unknown make."""

from collections.abc import Iterator, Mapping
from typing import Any

from miniinfer_cli.errors import UsageError

_MOST = 1e30  # of any figure: what is reckoned from several stays finite


class Fields:
    """One object of a document. A key that is absent or null reads as None; one of another kind raises UsageError.

    ``place``: where in the document the object stands.
    """

    def __init__(self, value: Any, place: str = "") -> None:
        if not isinstance(value, Mapping):
            raise _wrong(place or "the document", "an object", value)
        self._value = value
        self._place = place

    def text(self, key: str) -> str | None:
        """A string."""
        value = self._value.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def number(self, key: str) -> float | None:
        """A number that can be reckoned with: of at most 1e30, and 0 where it is nearer to that than 1e-30."""
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not -_MOST <= value <= _MOST:
            raise self._wrong(key, f"a number up to {_MOST:g}")
        return float(value) if abs(value) >= 1 / _MOST else 0.0

    def amount(self, key: str) -> float | None:
        """A finite number that is not negative: a time, a size."""
        value = self.number(key)
        if value is not None and value < 0:
            raise self._wrong(key, "0 or more")
        return value

    def count(self, key: str) -> int | None:
        """An integer of 0 or more, and of at most 1e30."""
        value = self._value.get(key)
        if value is not None and not _is_count(value):
            raise self._wrong(key, "an integer of 0 or more")
        return None if value is None else int(value)

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self._value.get(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    @property
    def values(self) -> Mapping[str, Any]:
        """Everything that stands there, unread."""
        return self._value

    def object(self, key: str) -> "Fields | None":
        """An object."""
        value = self._value.get(key)
        return None if value is None else Fields(value, self._at(key))

    def objects(self, key: str) -> "tuple[Fields, ...]":
        """A list of objects."""
        return tuple(Fields(value, f"{self._at(key)}[{n}]") for n, value in enumerate(self._list(key)))

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        found = self._list(key)
        if not all(isinstance(v, str) for v in found):
            raise self._wrong(key, "a list of strings")
        return tuple(found)

    def counts(self, key: str) -> tuple[int, ...]:
        """A list of integers of 0 or more."""
        found = self._list(key)
        if not all(map(_is_count, found)):
            raise self._wrong(key, "a list of integers of 0 or more")
        return tuple(found)

    def amounts(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers that are not negative."""
        items = {f"{key}[{n}]": value for n, value in enumerate(self._list(key))}
        found = [amount for item in items if (amount := Fields(items, self._place).amount(item)) is not None]
        if len(found) < len(items):
            raise self._wrong(key, "a list of numbers of 0 or more")
        return tuple(found)

    def shown(self, key: str) -> str | None:
        """Whatever stands there, as text for a reader."""
        value = self._value.get(key)
        return None if value is None else _as_text(value)

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every key whose value is not null, with that as text for a reader."""
        return ((str(k), _as_text(v)) for k, v in self._value.items() if v is not None)

    def numbers(self) -> dict[str, float]:
        """Every key, all of which must be numbers of 0 or more."""
        return {str(k): v for k in self._value if (v := self.amount(k)) is not None}

    def __contains__(self, key: str) -> bool:
        return self._value.get(key) is not None

    def _list(self, key: str) -> list[Any]:
        value = self._value.get(key)
        if value is not None and not isinstance(value, list):
            raise self._wrong(key, "a list")
        return value or []

    def _at(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key

    def _wrong(self, key: str, expected: str) -> UsageError:
        return _wrong(self._at(key), expected, self._value[key])


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST


def _wrong(place: str, expected: str, value: Any) -> UsageError:
    got = repr(value)
    return UsageError(
        f"{place}: expected {expected}, got {got if len(got) <= 60 else got[:57] + '...'}",
        hint="give a result as JSON, as a run or a profile wrote it",
    )


def _as_text(value: Any) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case Mapping():
            return ", ".join(f"{k} {_as_text(v)}" for k, v in value.items() if v is not None)
        case list() | tuple():
            return ", ".join(map(_as_text, value))
    return str(value)
