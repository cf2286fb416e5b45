"""Which models can be generated, and ``generate``: one of them as a file or in memory, plus inputs for any of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401  np.dtype("bfloat16") needs it
import numpy as np
import onnx
from onnx import helper

from sample_models import bert, detector, efficientnet, gpt2, llama, lstm, mobilenet, resnet, simple_cnn, vit
from sample_models.graph_writer import FLOATS, GraphWriter
from sample_models.request import Request

# Several operators take bfloat16 from this opset on.
BF16_OPSET = 22


@dataclass(frozen=True)
class Family:
    """A generator: how it writes its graph, at which opset, and whether "all" includes it."""

    write: Callable[[GraphWriter, Request], None]
    opset: int
    in_all: bool = True


FAMILIES = {
    "simple_cnn": Family(simple_cnn.write, simple_cnn.OPSET),
    "resnet50": Family(resnet.write, resnet.OPSET),
    "mobilenet_v2": Family(mobilenet.write, mobilenet.OPSET),
    "efficientnet_b0": Family(efficientnet.write, efficientnet.OPSET),
    "vit_b16": Family(vit.write, vit.OPSET),
    "bert_base": Family(bert.write, bert.OPSET),
    "gpt2": Family(gpt2.write, gpt2.OPSET),
    "gpt2_large": Family(gpt2.write_large, gpt2.OPSET, in_all=False),
    "llama_1b": Family(llama.write_1b, llama.OPSET, in_all=False),
    "tinyllama": Family(llama.write_tiny, llama.OPSET, in_all=False),
    "detector": Family(detector.write, detector.OPSET),
    "lstm_tagger": Family(lstm.write, lstm.OPSET),
}


def generate(name: str, request: Request, *, dtype: str = "f32", seed: int = 0, data: Path | None = None) -> onnx.ModelProto:
    """The model ``name`` with weights of ``dtype`` (f32, f16, bf16) drawn from ``seed``.

    With ``data`` the larger weights are written to that file, which must end up beside the model's. Raises KeyError
    for a name or dtype that is not known.
    """
    family = FAMILIES[name]
    opset = max(family.opset, BF16_OPSET) if dtype == "bf16" else family.opset
    graph = GraphWriter(name, opset=opset, dtype=FLOATS[dtype], seed=seed, data=data)
    family.write(graph, request)
    return graph.model()


def sample_inputs(model: onnx.ModelProto, sizes: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays for the inputs of a generated model; ``sizes`` gives the dynamic dimensions: a past is as long as what is new.

    Floats are standard normal, integers below the bound noted on the input; a mask is ones, then zeros.
    """
    rng = np.random.default_rng(seed)
    if "seq" in sizes:
        sizes = {"past": sizes["seq"], "total": 2 * sizes["seq"], **sizes}
    samples = {}
    for item in model.graph.input:
        tensor = item.type.tensor_type
        shape = tuple(sizes[dim.dim_param] if dim.dim_param else dim.dim_value for dim in tensor.shape.dim)
        highs = {entry.key: int(entry.value) for entry in item.metadata_props}
        if "mask" in item.name:
            values = np.arange(shape[-1]) < rng.integers(1, shape[-1] + 1, size=(*shape[:-1], 1))
        elif highs:
            values = rng.integers(highs["high"], size=shape)
        else:
            values = rng.standard_normal(shape)
        samples[item.name] = values.astype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    return samples
