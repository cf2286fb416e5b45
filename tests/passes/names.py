"""The names of passes."""

from miniinfer_cli.passes.pipeline import PHASES


def pass_names() -> tuple[str, ...]:
    """Those that a build may leave out, in order of first run."""
    return tuple(dict.fromkeys(p.name for phase in PHASES for p in phase.passes))
