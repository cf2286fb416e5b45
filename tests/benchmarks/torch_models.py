"""Well-known networks of torchvision and transformers with random weights, two of our own, and their exports to ONNX.

python -m tests.benchmarks.torch_models NAME f32|f16|bf16 FILE
"""

import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SEQUENCE = 128
EXPORTED = {"f16": "f16", "bf16": "bf16", "tf32": "f32", "f32": "f32"}
"""The element type of the export, by the precision that is measured."""


def make(name: str, batch: int, draw: int = 0) -> tuple[Any, dict[str, Any]]:
    """The model in f32, in evaluation mode, and random inputs by name; the same on every call.

    ``name``: one of LANGUAGE or IMAGES, or a network for images as torchvision calls it. ``draw``: other weights and inputs.
    """
    import torch

    torch.manual_seed(2 * draw)
    own = LANGUAGE | IMAGES
    model, feeds = own[name](batch) if name in own else _torchvision(name, batch)
    torch.manual_seed(2 * draw + 1)  # whatever the batch
    _give_values(model, feeds)
    return model.eval(), feeds


def _give_values(model: Any, feeds: dict[str, Any]) -> None:
    """Makes of untrained weights some whose outputs have a size worth comparing, as trained ones do.

    Batch normalization keeps the size of random activations, which otherwise fade until f16 underflows. A last layer of nothing
    but zeros (ViT's) gets random weights.
    """
    import torch

    def measure(norm: Any, inputs: tuple[Any]) -> None:
        norm.running_var.fill_(inputs[0].square().mean())

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    if norms:
        with torch.inference_mode():
            model.eval()(torch.randn(1, *feeds["x"].shape[1:]))
    for hook in hooks:
        hook.remove()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and not layer.weight.any():
            torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)


def in_dtype(model: Any, feeds: dict[str, Any], dtype: str) -> tuple[Any, dict[str, Any]]:
    """Model and floating inputs in another type; image models channels-last, which helps PyTorch."""
    import torch

    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    images = any(v.dim() == 4 for v in feeds.values())
    model = model.to(dtype=kind, memory_format=torch.channels_last) if images else model.to(dtype=kind)
    converted = {k: v.to(kind) if v.is_floating_point() else v for k, v in feeds.items()}
    return model, {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in converted.items()}


def first(output: Any) -> Any:
    """The tensor that is compared: the output itself, or the first of several."""
    return output if hasattr(output, "double") else output[0]


def to_numpy(tensor: Any) -> Any:
    """A tensor as a dense numpy array; bf16, which numpy lacks, as ml_dtypes has it."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def export(name: str, dtype: str, path: Path, draw: int = 0) -> None:
    """Writes the ONNX file, with the batch left open."""
    import torch

    model, feeds = make(name, 2, draw)
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    # On the processor: traced on a GPU, attention in f16 is exported with Casts to f32 that never come back.
    model = model.to(dtype=kind)
    feeds = {k: v.to(dtype=kind if v.is_floating_point() else v.dtype) for k, v in feeds.items()}
    size = feeds["x"].shape[2:] if name in OF_ANY_SIZE else None
    if size is not None:  # in f16 a processor takes minutes for a large image
        feeds = {"x": feeds["x"][..., :TRACED_SIZE, :TRACED_SIZE]}
    inner: Any = getattr(model, "model", None)
    if hasattr(inner, "set_attn_implementation"):
        # PyTorch 2.11 exports its fused attention in f16 with Casts to f32 that never come back.
        inner.set_attn_implementation("eager")
    torch.backends.mha.set_fastpath_enabled(False)  # one operation that ONNX has no word for
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(feeds.values()),
            str(path),
            input_names=list(feeds),
            output_names=["output"],
            dynamic_axes={k: {0: "batch"} for k in [*feeds, "output"]},
            opset_version=17,
            # Otherwise the exporter folds batch normalization into the weights, in f16 with an error of its own.
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    if size is not None:
        _set_size(path, size)


def _set_size(path: Path, size: tuple[int, int]) -> None:
    """Gives the images of the file this height and width: those of its input, and of its output, which is as large."""
    import onnx

    model = onnx.load(path)
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for axis, length in zip(value.type.tensor_type.shape.dim[2:], size, strict=True):
            axis.Clear()
            axis.dim_value = length
    onnx.save(model, path)


def _image(batch: int, size: int = 224) -> dict[str, Any]:
    import torch

    return {"x": torch.randn(batch, 3, size, size)}


def _tokens(batch: int, vocabulary: int, sequence: int = SEQUENCE) -> dict[str, Any]:
    import torch

    return {"input_ids": torch.randint(0, vocabulary, (batch, sequence))}


def _torchvision(name: str, batch: int) -> tuple[Any, dict[str, Any]]:
    import torchvision

    return getattr(torchvision.models, name)(weights=None), _image(batch)


def _unet(batch: int) -> tuple[Any, dict[str, Any]]:
    from tests.benchmarks.torch_networks import UNET_SIZE, UNet

    return UNet(), _image(batch, UNET_SIZE)


def _yolo(batch: int) -> tuple[Any, dict[str, Any]]:
    from tests.benchmarks.torch_networks import DETECTOR_SIZE, Detector

    return Detector(), _image(batch, DETECTOR_SIZE)


def _bert(batch: int, sequence: int = SEQUENCE) -> tuple[Any, dict[str, Any]]:
    from transformers import BertConfig, BertModel

    config = BertConfig()
    return _of_tokens(BertModel(config, add_pooling_layer=False)), _tokens(batch, config.vocab_size, sequence)


def _gpt2(batch: int) -> tuple[Any, dict[str, Any]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(use_cache=False)
    # The mask is given: how this library makes it cannot be exported by every release of PyTorch.
    return _of_tokens(GPT2LMHeadModel(config), causal=True), _tokens(batch, config.vocab_size)


def _of_tokens(model: Any, *, causal: bool = False) -> Any:
    """The model with token ids as its only input, and its first output."""
    import torch

    class OfTokens(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            later = torch.full((SEQUENCE, SEQUENCE), float("-inf")).triu(1)
            self.register_buffer("mask", later[None, None] if causal else None)

        def forward(self, input_ids: Any) -> Any:
            more = {} if self.mask is None else {"attention_mask": self.mask}
            return self.model(input_ids=input_ids, **more)[0]

    return OfTokens()


LANGUAGE: dict[str, Callable[[int], tuple[Any, dict[str, Any]]]] = {
    "bert_base": _bert,
    "bert_base_s384": partial(_bert, sequence=384),
    "gpt2": _gpt2,
}
OF_ANY_SIZE = ("unet",)
"""Networks whose graphs hold no size, and give images as large as they take."""
TRACED_SIZE = 32
IMAGES: dict[str, Callable[[int], tuple[Any, dict[str, Any]]]] = {"unet": _unet, "yolo": _yolo}


if __name__ == "__main__":
    export(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
