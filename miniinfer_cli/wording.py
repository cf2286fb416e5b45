"""Texts in two wordings: for callers of the Python functions, and for the command line, which has flags for the same."""

from collections.abc import Sequence


class Wording(str):
    """A text as callers of the Python functions read it; ``flags`` is what the command line says in its place."""

    __slots__ = ("flags",)
    flags: str

    def __new__(cls, python: str, flags: str) -> "Wording":
        """The text in its two wordings."""
        text = super().__new__(cls, python)
        text.flags = flags
        return text

    def __reduce__(self) -> tuple[type["Wording"], tuple[str, str]]:
        return Wording, (str(self), self.flags)


def as_flags(text: str) -> str:
    """``text`` as the command line says it."""
    return text.flags if isinstance(text, Wording) else text


def joined(separator: str, texts: Sequence[str]) -> str:
    """The texts in one, in both wordings where any has two."""
    if not any(isinstance(t, Wording) for t in texts):
        return separator.join(texts)
    return Wording(separator.join(texts), flags=separator.join(map(as_flags, texts)))
