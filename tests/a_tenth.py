"""Every limit at a tenth of its default: what models from everywhere must do with, so that none comes near a default."""

from miniinfer_cli.limits import LIMITS

A_TENTH = {limit.name: limit.default // 10 for limit in LIMITS}
