"""The Llama of sample_models in f16 beside transformers' with the same weights: logits compared, wall time of a prompt's tokens.

    python -m tests.benchmarks.llama [--seq 128] [--batch 1] [--compile] [--out FILE] [--small]

Inputs stay on the device; K inferences back to back, one wait, divided by K; medians of the rounds. PyTorch runs eagerly, within
one CUDA graph, and compiled where asked (``reduce-overhead``). Errors are those of the logits against PyTorch's in f32, no TF32.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import miniinfer_cli
from miniinfer_cli.backends.cuda.choice.joining import joins_of
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.ops.inference import infer_graph
from sample_models.catalogue import generate
from sample_models.llama import EPSILON, SMALL, THETA, Sizes
from sample_models.request import Request
from tests.benchmarks.beside_torch import captured, error_of, wall
from tests.benchmarks.launches import Run

NAME = "llama_1b"
_ROUNDS = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seq", type=int, default=128)
    parser.add_argument("--small", action="store_true", help="the small network, to see that all of this works")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well")
    parser.add_argument(
        "--join", nargs="*", default=[], metavar="KEY", help="measured with all joins of this key forced, as well"
    )
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), options.seq, small=options.small)
        plan = Path(folder) / "model.plan"
        miniinfer_cli.build(file, plan)
        tokens = SMALL.tokens if options.small else Sizes().tokens
        ids = np.random.default_rng(0).integers(0, tokens, (options.batch, options.seq))
        row, logits = measure_ours(plan, ids)
        for key in options.join:
            forced, others = measure_ours(plan, ids, key)
            row |= {f"{key} {name}": value for name, value in forced.items()} | {f"{key} differs": error_of(others, logits)}
        print(row, flush=True)
        row |= measure_torch(file, ids, logits, options)
    print(json.dumps(row, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(row, indent=1) + "\n")


def write(folder: Path, seq: int, *, small: bool) -> Path:
    """The ONNX file, its weights beside it."""
    file = folder / f"{NAME}.onnx"
    onnx.save(generate(NAME, Request("batch", seq, small), dtype="f16", data=file.with_suffix(".data")), file)
    return file


def measure_ours(plan: Path, ids: Any, key: str = "") -> tuple[dict[str, Any], Any]:
    """Milliseconds of an inference, the number of steps, and the logits; with all joins of the ``key``, if any, forced."""
    with ExitStack() as stack:
        engine = stack.enter_context(miniinfer_cli.load(plan, "cuda:0", cache=None))
        if key:
            graph, types = engine.graph_for(engine.check({"input_ids": ids}))
            joins = joins_of(graph, infer_graph(graph, types), Target())
            forced = {join.nodes[0].name: key for join in joins if join.key == key}
            engine = stack.enter_context(miniinfer_cli.load(plan, "cuda:0", cache=None, tactics=forced))
        (logits,) = engine.run({"input_ids": ids}).values()
        run = Run(engine, {"input_ids": ids}, stack)
        wall_us = statistics.median(run.wall_us() for _ in range(_ROUNDS))
        device_us = statistics.median(run.device_us() for _ in range(_ROUNDS))
        found = {"steps": len(run.program.made.steps), "ours_ms": wall_us / 1e3, "ours_device_ms": device_us / 1e3}
        return found, logits


def measure_torch(file: Path, ids: Any, ours: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of each way of PyTorch's, and the errors of both against f32."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    model = network(file, SMALL if options.small else Sizes()).eval()
    feeds = {"input_ids": torch.from_numpy(ids).cuda()}
    with torch.inference_mode():
        want = model.float()(**feeds, use_cache=False).logits.double().cpu().numpy()
        model = model.half()

        def forward(**given: Any) -> Any:
            return model(**given, use_cache=False).logits

        theirs = forward(**feeds).double().cpu().numpy()
        found = {
            "error": error_of(ours, want),
            "torch_error": error_of(theirs, want),
        }
        ways: dict[str, Callable[[], Any]] = {"eager": lambda: forward(**feeds), "graph": captured(torch, forward, feeds)}
        if options.compile:
            compiled = torch.compile(model, mode="reduce-overhead")
            ways["compile"] = lambda: compiled(**feeds, use_cache=False).logits
        for name, way in ways.items():
            found[f"{name}_ms"] = wall(way, torch.cuda.synchronize)
            print(name, found[f"{name}_ms"], flush=True)
    return found


def network(file: Path, sizes: Sizes) -> Any:
    """transformers' network on the GPU in f32, with the file's weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=sizes.tokens, hidden_size=sizes.width, intermediate_size=sizes.inner, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.groups, head_dim=sizes.size, rms_norm_eps=EPSILON,
        rope_theta=THETA, tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    state = {name: torch.from_numpy(values).cuda().float() for name, values in weights_of(file).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise SystemExit(f"weights do not fit: {missing}, {unexpected}")
    model.tie_weights()
    frequencies = model.model.rotary_emb.inv_freq
    frequencies.copy_(torch.from_numpy(THETA ** (-np.arange(0, sizes.size, 2, dtype=np.float32) / sizes.size)))
    return model


def weights_of(file: Path) -> Mapping[str, Any]:
    """The weights as PyTorch has them: those of linear layers ``[out, in]``."""
    found = {}
    for tensor in onnx.load(file).graph.initializer:
        values = numpy_helper.to_array(tensor)
        found[tensor.name] = np.ascontiguousarray(values.T) if tensor.name.endswith("_proj.weight") else values.copy()
    return found


if __name__ == "__main__":
    main()
