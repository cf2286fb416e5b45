"""What the server tells of itself and of its models, as the protocol has it."""

from typing import Any

from miniinfer_cli.server.contract import Served
from miniinfer_cli.server.signature import Tensor
from miniinfer_cli.version import VERSION

_NAME = "miniinfer"
_PLATFORM = "miniinfer_plan"


def server_metadata(shared_memory: bool) -> dict[str, Any]:
    """Of the server: its name, its version, and the extensions of the protocol that it has."""
    extensions = ["binary_tensor_data", "model_configuration", "schedule_policy", "statistics"]
    return {"name": _NAME, "version": VERSION, "extensions": extensions + ["system_shared_memory"] * shared_memory}


def model_metadata(served: Served, versions: list[str]) -> dict[str, Any]:
    """Of a model: its versions, and its inputs and outputs, with -1 for sizes that vary."""
    return {"name": served.name, "versions": versions, "platform": _PLATFORM, **served.current.signature.to_json()}


def model_config(served: Served) -> dict[str, Any]:
    """As far as clients of Triton look for it: sizes without the batch, where that is the first of all."""
    plan = served.current
    first = plan.batch_is_first

    def told(tensor: Tensor) -> dict[str, Any]:
        return {
            "name": tensor.binding.name,
            "data_type": tensor.triton_type,
            "dims": list(tensor.shape[1:] if first else tensor.shape),
        }

    return {
        "name": served.name,
        "platform": _PLATFORM,
        "backend": _NAME,
        "max_batch_size": plan.most_rows if first else 0,
        "input": [told(t) for t in plan.signature.inputs.values()],
        "output": [told(t) for t in plan.signature.outputs.values()],
    }
