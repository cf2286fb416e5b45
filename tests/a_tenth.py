"""Every limit at a tenth of its default: what models from everywhere must do with, so that none comes near a default."""

from pathlib import Path
from typing import Any

from miniinfer_cli.builder.building import build_plan
from miniinfer_cli.builder.options import BuildOptions
from miniinfer_cli.limits import FOLD_STEPS, LIMITS

A_TENTH = {limit.name: limit.default // 10 for limit in LIMITS}


def build_within_a_tenth(model: Any, plan: Path) -> None:
    """Builds ``model``; none of its constants takes too long to fold."""
    built = build_plan(model, plan, BuildOptions(limits=A_TENTH))
    assert [note for note in built.notes if FOLD_STEPS.name in note] == []
