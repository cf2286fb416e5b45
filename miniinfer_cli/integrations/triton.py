"""A folder of Triton's for a plan: ``config.pbtxt``, and the model of the Python backend. See docs/adapters.md."""

import json
from dataclasses import dataclass

from engine_format import Plan
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import DType
from miniinfer_cli.runtime.bindings import Binding
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.server.signature import Tensor, signature_of
from miniinfer_cli.serving.batch_sizes import choose_sizes
from miniinfer_cli.serving.layout import find_layout
from miniinfer_cli.wording import Wording

MODEL = '''"""A plan of miniinfer's, for Triton's Python backend: miniinfer must be installed in the backend's environment."""

from miniinfer_cli.integrations.triton_model import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """``name``: of the model. ``max_batch``: rows at most; None as the plan says. ``max_delay_ms``: that requests wait for
    others.

    ``instances``: how many there are, each with an engine of its own.
    """

    name: str
    max_batch: int | None = None
    max_delay_ms: float = 2.0
    instances: int = 1


def config_of(plan: Plan, options: TritonOptions) -> str:
    """The text of ``config.pbtxt`` for a plan. Raises UsageError for types that the Python backend does not have.

    A plan whose batch is the first dimension of all inputs and outputs is batched; another one takes requests as they are.
    """
    with load(plan, "cpu") as engine:
        return _config(engine, options)


def _config(engine: Engine, options: TritonOptions) -> str:
    given = [b for b in engine.inputs if b.default is None]
    signature = signature_of(given, engine.outputs)
    for binding in (*given, *engine.outputs):
        _expect_known(binding)
    most = _most_rows(engine, options.max_batch)

    def tensor(of: Tensor) -> str:
        dims = of.shape[1:] if most else of.shape
        shown = ", ".join(map(str, dims)) if dims else "1"
        reshape = "" if dims else " reshape { shape: [ ] }"
        return f"  {{ name: {_quoted(of.binding.name)} data_type: {of.triton_type} dims: [ {shown} ]{reshape} }}"

    def tensors(what: str, of: list[Tensor]) -> str:
        return f"{what} [\n" + ",\n".join(map(tensor, of)) + "\n]\n"

    parts = [
        f'name: {_quoted(options.name)}\nbackend: "python"\nmax_batch_size: {most}\n',
        tensors("input", list(signature.inputs.values())),
        tensors("output", list(signature.outputs.values())),
        f"instance_group [\n  {{ count: {options.instances} kind: KIND_AUTO }}\n]\n",
        'parameters { key: "plan" value { string_value: "model.plan" } }\n',
    ]
    if most:
        parts.append(f"dynamic_batching {{ max_queue_delay_microseconds: {int(options.max_delay_ms * 1e3)} }}\n")
    return "".join(parts)


def _most_rows(engine: Engine, max_batch: int | None) -> int:
    """Rows of a batch; 0 where Triton is not to batch."""
    try:
        layout = find_layout(engine, None, {})
    except UsageError:
        if max_batch is not None:
            raise
        return 0
    if any((*layout.axes, *layout.output_axes)):
        return 0
    return choose_sizes(engine, layout, max_batch, None)[-1]


def _expect_known(binding: Binding) -> None:
    if getattr(binding.type, "dtype", None) is DType.BF16:
        raise UsageError(
            f"{binding}: Triton's Python backend has no arrays of bf16",
            hint=Wording(
                'build(model, io_dtype="f32") has f32 at inputs and outputs',
                flags="miniinfer build --io-dtype f32 has f32 at inputs and outputs",
            ),
        )


def _quoted(text: str) -> str:
    return json.dumps(text)
