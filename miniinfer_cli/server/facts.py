"""What the server tells of itself and of its models, as the protocol has it."""

from typing import Any

from miniinfer_cli.server.contract import Served
from miniinfer_cli.server.figures import CANCELLED, RESULT, Times
from miniinfer_cli.server.repository import ServedPlan
from miniinfer_cli.server.signature import Tensor
from miniinfer_cli.version import VERSION

_NAME = "miniinfer"
PLATFORM = "miniinfer_plan"


def server_metadata(shared_memory: bool) -> dict[str, Any]:
    """Of the server: its name, its version, and the extensions of the protocol that it has."""
    extensions = ["binary_tensor_data", "model_configuration", "schedule_policy", "statistics"]
    return {"name": _NAME, "version": VERSION, "extensions": extensions + ["system_shared_memory"] * shared_memory}


def model_metadata(served: Served, versions: list[str]) -> dict[str, Any]:
    """Of a model: its versions, and its inputs and outputs, with -1 for sizes that vary."""
    return {"name": served.name, "versions": versions, "platform": PLATFORM, **served.current.signature.to_json()}


def model_config(served: Served) -> dict[str, Any]:
    """As far as clients of Triton look for it: sizes without the batch, where that is the first of all."""
    plan = served.current
    first = plan.batch_is_first

    def told(tensor: Tensor) -> dict[str, Any]:
        kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
        return {
            "name": tensor.binding.name,
            "data_type": f"TYPE_{kind}",
            "dims": list(tensor.shape[1:] if first else tensor.shape),
        }

    return {
        "name": served.name,
        "platform": PLATFORM,
        "backend": _NAME,
        "max_batch_size": plan.most_rows if first else 0,
        "input": [told(t) for t in plan.signature.inputs.values()],
        "output": [told(t) for t in plan.signature.outputs.values()],
    }


def model_statistics(served: ServedPlan) -> dict[str, Any]:
    """The figures as the protocol's statistics extension has them, times in nanoseconds."""
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
