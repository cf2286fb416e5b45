"""The figures of a model as the protocol's statistics extension has them."""

from typing import Any

from miniinfer_cli.server.figures import CANCELLED, RESULT, Times
from miniinfer_cli.server.repository import ServedPlan


def model_statistics(served: ServedPlan) -> dict[str, Any]:
    """Counts and times in nanoseconds of all requests so far."""
    figures, totals = served.figures, served.totals()
    failed = sum(figures.outcomes.values()) - figures.outcomes[RESULT] - figures.outcomes[CANCELLED]
    done = figures.outcomes[RESULT]

    def times(of: Times) -> dict[str, int]:
        return {"count": done, "ns": int(of.sum_s * 1e9)}

    nothing = {"count": done, "ns": 0}
    return {
        "model_stats": [
            {
                "name": served.name,
                "version": served.version,
                "inference_count": totals.rows,
                "execution_count": totals.batches,
                "inference_stats": {
                    "success": times(figures.request_s),
                    "fail": {"count": failed, "ns": 0},
                    "cancel": {"count": figures.outcomes[CANCELLED], "ns": 0},
                    "queue": times(figures.queue_s),
                    "compute_input": nothing,
                    "compute_infer": times(figures.execution_s),
                    "compute_output": nothing,
                },
                "batch_stats": [],
            }
        ]
    }
