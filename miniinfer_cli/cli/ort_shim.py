"""``miniinfer ort-shim``: a program of onnxruntime's, run over miniinfer as it is."""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from miniinfer_cli.errors import UsageError
from miniinfer_cli.ort_shim import SITE


@click.command(
    "ort-shim",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- PROGRAM [ARGS]...")
def command(words: tuple[str, ...]) -> None:
    """Run a Python program with miniinfer in the place of onnxruntime.

    PROGRAM is a command (python app.py, a script that pip installed), a file app.py, or -m MODULE. Only it and the processes that
    it starts see miniinfer as onnxruntime; nothing is installed. Its exit code is the command's.
    """
    program = program_of(words)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(program[0], program, shimmed(os.environ))


def program_of(words: Sequence[str]) -> list[str]:
    """The command line of a program: the file to run, and its arguments. Raises UsageError where there is none."""
    if not words:
        raise UsageError("ort-shim: there is no program", hint="miniinfer ort-shim -- python app.py")
    if words[0] in ("-m", "-c") or (words[0].endswith(".py") and Path(words[0]).is_file()):
        return [sys.executable, *words]
    found = shutil.which(words[0])
    if found is None:
        raise UsageError(
            f"ort-shim: there is no program {words[0]!r}", hint="give a command, a file that ends in .py, or -m MODULE"
        )
    return [found, *words[1:]]


def shimmed(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with our folder before all others on Python's path."""
    others = [p for p in environment.get("PYTHONPATH", "").split(os.pathsep) if p and p != str(SITE)]
    return {**environment, "PYTHONPATH": os.pathsep.join([str(SITE), *others])}
