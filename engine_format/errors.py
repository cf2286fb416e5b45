"""PlanError: what every malformed, damaged or too new plan raises. NotDurable: a file that a power failure may undo."""


class PlanError(Exception):
    """A file is not a sound plan. The text is one line; the same facts stand apart for callers:

    ``message`` says what is wrong, got and expected. ``offset`` is the byte of the file where it shows, None where no one
    byte is to blame. ``hint`` is the way out, empty where there is none. ``path`` is the file, empty until known.
    """

    def __init__(self, message: str, *, offset: int | None = None, hint: str = "", path: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.hint = hint
        self.path = path

    def __str__(self) -> str:
        return self.message if self.offset is None else f"{self.message} (byte {self.offset})"


class NotDurable(OSError):
    """The file is written whole and has its name, but a power failure may bring back what was there before."""
