"""A Llama of 1.1 B parameters (TinyLlama's shapes, random weights) token by token on a GPU: caches of keys and values as states.

    python -m tests.benchmarks.decode [tokens f16 int4 prefill] [--device cuda:0] [--small] [--count 500] [--out FILE]

Each part runs in a process of its own, which may take ``--limit`` seconds. All check before they time:

- ``tokens``: 100 greedy tokens in f32 (no TF32) behind a prompt of 32, beside PyTorch's from the same weights, or, where there is
  no torch, beside whole prompts computed with no cache. A token that differs counts only where PyTorch's logits are further apart
  than rounding takes them.
- ``f16``: logits of turns beside those of the whole prompt; then ``--count`` tokens behind a prompt of 512. Time of a token:
  median and p99 of the host's clock around ``run``, which hands out the logits; median on the device of a replay at that length;
  and the bytes that a token reads (weights without the embedding's table, rows of the caches) over 4.3 TB/s. What was made,
  captured and allocated after the first tokens is counted: all of it has to be 0.
- ``int4``: the same with weights of 4 bits, beside f16's device time.
- ``prefill``: a prompt of 512, beside PyTorch in f16: eager, within a CUDA graph, compiled.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import miniinfer_cli
from sample_models.catalogue import generate
from sample_models.llama import EPSILON, TINY, TINY_SMALL, Sizes
from sample_models.request import Request
from tests.benchmarks.beside_torch import captured, error_of, wall

PARTS = ("tokens", "f16", "int4", "prefill")
CAPACITY = 2048
BANDWIDTH = 4.3e12
"""Bytes a second that the goals are measured by."""
_PROMPT, _PREFILL, _GREEDY = 32, 512, 100
_NEAR = 1e-3
"""Logits in f32 that are nearer than that may win in either."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all when left out")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--small", action="store_true", help="the small network, to see that all of this works")
    parser.add_argument("--count", type=int, default=500, help="tokens that are timed")
    parser.add_argument("--limit", type=float, default=280.0, help="seconds that each part may take")
    parser.add_argument("--folder", type=Path, help="where models are kept between runs; a temporary one when left out")
    parser.add_argument("--out", type=Path, help="where the numbers go as JSON")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if wrong := [p for p in options.parts if p not in PARTS]:
        parser.error(f"there is no part {wrong[0]!r}")
    if options.within:
        print(
            json.dumps({"tokens": tokens, "f16": decode_f16, "int4": decode_int4, "prefill": prefill}[options.parts[0]](options))
        )
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = {part: apart(part, options, folder) for part in options.parts or PARTS}
    f16, int4 = found.get("f16", {}).get("device_us"), found.get("int4", {}).get("device_us")
    if f16 and int4:
        found["int4"]["of_f16"] = round(int4 / f16, 3)
    print(json.dumps(found, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def apart(part: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The numbers of one part, from a process of its own; what went wrong where it failed, or took too long."""
    command = [sys.executable, "-m", "tests.benchmarks.decode", part, "--within", "--device", options.device]
    command += ["--count", str(options.count), "--folder", str(folder), *(["--small"] if options.small else [])]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {options.limit:.0f} s"}
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-3:]}
    row: dict[str, Any] = {**json.loads(done.stdout.strip().splitlines()[-1]), "seconds": round(time.perf_counter() - started, 1)}
    print(part, row, flush=True)
    return row


def sizes_of(options: argparse.Namespace) -> Sizes:
    return TINY_SMALL if options.small else TINY


def model_file(options: argparse.Namespace, dtype: str) -> Path:
    """The ONNX file with weights of ``dtype``, its data beside it; made where it is not there yet."""
    file = Path(options.folder) / f"tinyllama_{dtype}{'_small' if options.small else ''}.onnx"
    if not file.exists():
        model = generate("tinyllama", Request(small=options.small), dtype=dtype, data=file.with_suffix(".data"))
        onnx.save(model, file)
    return file


def opened(options: argparse.Namespace, dtype: str, **build: Any) -> Any:
    """An engine of the model with caches."""
    return _loaded(options, dtype, kv_cache=CAPACITY, **build)


def _loaded(options: argparse.Namespace, dtype: str, **build: Any) -> Any:
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:  # a plan that is open needs no name
        plan = Path(folder) / "model.plan"
        miniinfer_cli.build(model_file(options, dtype), plan, **build)
        return miniinfer_cli.load(plan, options.device)


def prompt_of(options: argparse.Namespace, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, sizes_of(options).tokens, (1, length))


def tokens(options: argparse.Namespace) -> dict[str, Any]:
    """Greedy tokens of ours, and whether each is PyTorch's choice behind those before it, or as good as that."""
    ids = prompt_of(options, _PROMPT)
    with opened(options, "f32", tf32=False) as engine, engine.create_context() as context:
        new, ours = ids, []
        for _ in range(_GREEDY):
            new = context.run({"input_ids": new})["logits"][:, -1].argmax(-1)[:, None]
            ours.append(int(new[0, 0]))
    whole = np.concatenate([ids, np.array([ours[:-1]])], 1)
    by, logits = _whole_logits(options, whole)
    logits = logits[0, _PROMPT - 1 :]
    behind = logits.max(-1) - logits[np.arange(_GREEDY), ours]
    return {
        "beside": by,
        "equal": int((logits.argmax(-1) == ours).sum()),
        "of": _GREEDY,
        "distinct": len(set(ours)),
        "furthest_behind": float(behind.max()),
        "right": bool((behind <= _NEAR).all()),
    }


def _whole_logits(options: argparse.Namespace, ids: np.ndarray) -> tuple[str, np.ndarray]:
    try:
        model = network(options, "f32")
    except ImportError:
        return "whole prompts", _uncached(options, "f32", ids, tf32=False)
    import torch

    with torch.inference_mode():
        given = torch.from_numpy(ids).to(next(model.parameters()).device)
        return f"torch {torch.__version__}", model(given, use_cache=False).logits.float().cpu().numpy()


def _uncached(options: argparse.Namespace, dtype: str, ids: np.ndarray, **build: Any) -> np.ndarray:
    """The logits of a whole prompt by the plan with no caches."""
    with _loaded(options, dtype, **build) as engine:
        feeds = {
            b.name: np.zeros((1, *b.shape[1:2], 0, *b.shape[3:]), b.dtype) for b in engine.inputs if b.name.startswith("past")
        }
        feeds |= {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(ids.shape[1])[None]}
        found: np.ndarray = engine.run(feeds)["logits"].astype(np.float32)
        return found


def decode_f16(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens of the model in f16."""
    ids = prompt_of(options, 48)
    want = _uncached(options, "f16", ids)
    with opened(options, "f16") as engine:
        with engine.create_context() as context:
            parts = [context.run({"input_ids": ids[:, a:b]})["logits"] for a, b in ((0, 40), (40, 41), (41, 42), (42, 48))]
        error = error_of(np.concatenate(parts, 1).astype(np.float32), want)
        return {"error": error, **_timed(options, engine, bits=16)}


def decode_int4(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens of the model with weights of 4 bits; its error is that of the weights, told beside that of f16."""
    with opened(options, "f32", weight_only="int4") as engine:
        return _timed(options, engine, bits=4.25)


def _timed(options: argparse.Namespace, engine: Any, bits: float) -> dict[str, Any]:
    with engine.create_context() as context:
        context.run({"input_ids": prompt_of(options, _PREFILL)})
        new = np.array([[3]])
        for _ in range(8):  # each I/O slot: as it is, captured, replayed
            new = context.run({"input_ids": new})["logits"][:, -1].argmax(-1)[:, None]
        before, walls = _counts(engine), []
        for _ in range(options.count):
            started = time.perf_counter()
            logits = context.run({"input_ids": new})["logits"]
            walls.append((time.perf_counter() - started) * 1e6)
            new = logits[:, -1].argmax(-1)[:, None]
        made = {name: count - before[name] for name, count in _counts(engine).items()}
        arrays = engine.check({"input_ids": new})
        device = statistics.median(_device_us(context, arrays) for _ in range(30))
        steps = len(engine.program(arrays).steps)
        length = context.length
    sizes = sizes_of(options)
    read = _parameters(sizes) * bits / 8 + 2 * sizes.layers * sizes.groups * sizes.size * length * (2 if bits == 16 else 4)
    least = read / BANDWIDTH * 1e6
    walls.sort()
    median, p99 = walls[len(walls) // 2], walls[min(len(walls) - 1, int(len(walls) * 0.99))]
    return {
        "steps": steps, "length": length, "device_us": round(device, 1), "wall_us": round(median, 1),
        "p99_of_median": round(p99 / median, 3), "read_gb": round(read / 1e9, 3), "least_us": round(least, 1),
        "device_of_least": round(device / least, 2), "wall_of_least": round(median / least, 2), "after_warm_up": made,
    }  # fmt: skip


def _counts(engine: Any) -> dict[str, int]:
    stats = engine.stats()
    found = {"programs": stats["programs_made"]}
    if "cuda_graphs" in stats:
        found |= {"captures": stats["cuda_graphs"]["captures"], "allocations": stats["device_allocations"]}
    return found


def _device_us(context: Any, arrays: list[Any]) -> float:
    pending = context.start(arrays, timed=True, transfers=False)
    pending.result()
    return float(pending.times_ms[1] * 1e3)


def _parameters(sizes: Sizes) -> int:
    """Those that a token reads: all but the embedding's table, of which it reads a row."""
    width, keys = sizes.width, sizes.groups * sizes.size
    layer = 2 * width * width + 2 * width * keys + 3 * width * sizes.inner + 2 * width
    return sizes.layers * layer + width + width * sizes.tokens


def prefill(options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a prompt, the logits of all its tokens left on the device."""
    ids = prompt_of(options, _PREFILL)
    with opened(options, "f16") as engine, engine.create_context() as context:
        (ours,) = context.run({"input_ids": ids}).values()
        context.reset()
        arrays = engine.check({"input_ids": ids})
        last: list[Any] = []

        def start() -> None:
            last[:] = [context.start(arrays, transfers=False)]

        found: dict[str, Any] = {"ours_ms": round(wall(start, lambda: last[0].wait()), 3)}
        found["steps"] = len(engine.program(arrays).steps)
    try:
        model = network(options, "f16")
    except ImportError:
        return found | {"torch": "not installed"}
    import torch

    feeds = {"input_ids": torch.from_numpy(ids).to(next(model.parameters()).device)}

    def forward(**given: Any) -> Any:
        return model(**given, use_cache=True).logits

    with torch.inference_mode():
        theirs = forward(**feeds).float().cpu().numpy()
        found["error_beside_torch"] = error_of(ours.astype(np.float32), theirs)
        if not torch.cuda.is_available():
            return found
        ways: dict[str, Callable[[], Any]] = {"eager": lambda: forward(**feeds), "graph": captured(torch, forward, feeds)}
        compiled = torch.compile(model, mode="reduce-overhead")
        ways["compile"] = lambda: compiled(**feeds, use_cache=False)
        for name, way in ways.items():
            found[f"{name}_ms"] = round(wall(way, torch.cuda.synchronize), 3)
    best = min(found[f"{name}_ms"] for name in ways)
    return found | {"ours_of_best": round(found["ours_ms"] / best, 2)}


def network(options: argparse.Namespace, dtype: str) -> Any:
    """transformers' network with the file's weights, on the GPU where there is one. Raises ImportError where there is none."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.backends.cuda.matmul.allow_tf32 = False
    sizes = sizes_of(options)
    config = LlamaConfig(
        vocab_size=sizes.tokens, hidden_size=sizes.width, intermediate_size=sizes.inner, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.groups, head_dim=sizes.size, rms_norm_eps=EPSILON,
        rope_theta=sizes.theta, tie_word_embeddings=False, attn_implementation="sdpa",
    )  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM(config)
    state = {}
    for tensor in onnx.load(model_file(options, dtype)).graph.initializer:
        values = numpy_helper.to_array(tensor)
        is_linear = tensor.name.endswith("_proj.weight") or tensor.name == "lm_head.weight"
        state[tensor.name] = torch.from_numpy(np.ascontiguousarray(values.T) if is_linear else values.copy()).to(device)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise SystemExit(f"weights do not fit: {missing}, {unexpected}")
    frequencies = model.model.rotary_emb.inv_freq
    frequencies.copy_(torch.from_numpy(sizes.theta ** (-np.arange(0, sizes.size, 2, dtype=np.float32) / sizes.size)))
    return model.eval().to({"f32": torch.float32, "f16": torch.float16}[dtype])


if __name__ == "__main__":
    main()
