"""The script ``miniinfer-trtexec``: ``miniinfer trtexec`` under a name of its own, for callers that take one word."""

import sys

from miniinfer_cli.cli.main import main as miniinfer


def main() -> None:
    """Runs the process's command line. Always ends by SystemExit."""
    miniinfer(["trtexec", *sys.argv[1:]])
