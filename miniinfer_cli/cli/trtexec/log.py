"""Lines as trtexec prints them: a time, a letter, text; and the two lines that say how a run began and ended."""

import sys
from collections.abc import Sequence
from datetime import datetime

from miniinfer_cli.visible import visible

NAME = "TensorRT.trtexec"
"""What the first and the last line name, for those who look for it."""


class Log:
    """What is printed: ``I`` and ``V`` to standard output, ``W`` and ``E`` to standard error, each line at once.

    ``version``: the number of TensorRT whose trtexec is spoken, as its lines have it (101600). ``verbose``: V is printed, too.
    """

    def __init__(self, arguments: Sequence[str], version: str) -> None:
        self.verbose = False
        self._told = f"{NAME} [TensorRT v{version}] [b0] # miniinfer trtexec {' '.join(map(visible, arguments))}".rstrip()

    def running(self) -> None:
        """The first line."""
        self._print(f"&&&& RUNNING {self._told}")

    def ended(self, *, passed: bool) -> int:
        """The last line; gives the exit code that says the same."""
        self._print(f"&&&& {'PASSED' if passed else 'FAILED'} {self._told}")
        return 0 if passed else 1

    def info(self, text: str = "") -> None:
        """A line of the report."""
        self._line("I", text)

    def detail(self, text: str) -> None:
        """A line for those who asked for more."""
        if self.verbose:
            self._line("V", text)

    def warning(self, text: str) -> None:
        """What the user should know."""
        self._line("W", text, error=True)

    def error(self, text: str) -> None:
        """Why it failed."""
        self._line("E", text, error=True)

    def plain(self, text: str) -> None:
        """Text with no prefix."""
        self._print(text)

    def banner(self, title: str) -> None:
        """A heading, after an empty line."""
        self.info()
        self.info(f"=== {title} ===")

    def _line(self, letter: str, text: str, *, error: bool = False) -> None:
        self._print(f"[{datetime.now():%m/%d/%Y-%H:%M:%S}] [{letter}] {visible(text)}", error=error)

    def _print(self, text: str, *, error: bool = False) -> None:
        sys.stdout.flush()  # both streams may be one file
        print(text, file=sys.stderr if error else sys.stdout, flush=True)


def number(value: float) -> str:
    """As C++ prints a number: six digits that count."""
    return f"{value:.6g}"
