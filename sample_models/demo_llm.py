"""``make demo-llm``: a tiny Llama with caches of keys and values, token by token, on the CPU and on a GPU where there is one.

    python -m sample_models.demo_llm

Its weights are random, so its text means nothing; what counts is that the tokens are those of whole prompts, computed with no
cache.
Exit code 0 when they are, 1 when not, and a command's own code when it fails.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import miniinfer_cli
from miniinfer_cli.devices.inventory import take_inventory
from sample_models.catalogue import generate
from sample_models.demo import FOLDER, run_command
from sample_models.request import Request

CAPACITY = 128
PROMPT = (1, 22, 7, 43, 5, 18, 60, 31, 12)
NEW = 48
_NEAR = 1e-3
"""Logits that are nearer than that to the largest may win on another device."""


def generate_tokens(
    context: Any, prompt: np.ndarray, count: int, pick: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """The next ``count`` tokens of each row of ``prompt`` ([batch, tokens]), one after the other; ``pick`` chooses from logits.

    All that a loop has to do: give what is new, choose from the logits of the last token, and give that.
    """
    new = prompt
    for _ in range(count):
        logits = context.run({"input_ids": new})["logits"]
        new = pick(logits[:, -1])[:, None]
        yield new[:, 0]


def greedy(logits: np.ndarray) -> np.ndarray:
    """The likeliest token of each row of ``logits``."""
    return logits.argmax(-1)


def sampler(temperature: float, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Draws tokens by their probabilities, sharpened by a ``temperature`` below 1."""
    rng = np.random.default_rng(seed)

    def pick(logits: np.ndarray) -> np.ndarray:
        # The largest of logits with Gumbel noise is a draw from their softmax.
        return np.asarray((logits / temperature + rng.gumbel(size=logits.shape)).argmax(-1))

    return pick


def demo(folder: Path) -> int:
    """Builds the model into ``folder``, writes some tokens with it on each device, and looks whether they are right."""
    folder.mkdir(parents=True, exist_ok=True)
    model, plan = folder / "tinyllama_small.onnx", folder / "tinyllama_small.plan"
    onnx.save(generate("tinyllama", Request(small=True)), model)
    code = run_command(["build", str(model), "-o", str(plan), "--kv-cache", str(CAPACITY)])
    if code:
        return code
    prompt = np.array([PROMPT])
    right = True
    gpus = take_inventory(None).gpus
    for device in ("cpu", *(f"cuda:{gpu.ordinal}" for gpu in gpus[:1])):
        with miniinfer_cli.load(plan, device) as engine, engine.create_context() as context:
            list(generate_tokens(context, prompt, NEW, greedy))  # warms up
            context.reset()
            started = time.perf_counter()
            tokens = [int(t[0]) for t in generate_tokens(context, prompt, NEW, greedy)]
            spent = time.perf_counter() - started
            told = " ".join(map(str, tokens))
            print(f"On {device}: {told}")
            print(f"  {NEW / spent:.0f} tokens/s, {context.length} of {CAPACITY} rows of the caches hold something")
            right &= is_right(model, tokens)
            context.truncate(len(PROMPT) - 1)
            with context.fork() as other:
                for name, one, seed in (("one", context, 1), ("another", other, 2)):
                    drawn = generate_tokens(one, prompt[:, -1:], 8, sampler(0.8, seed))
                    print(f"  {name} continuation, drawn: {' '.join(str(int(t[0])) for t in drawn)}")
    print(f"\nTokens: {'those of whole prompts' if right else 'others than those of whole prompts'}")
    return 0 if right else 1


def is_right(model: Path, tokens: list[int]) -> bool:
    """Whether each token is the likeliest behind the prompt and those before it, computed with no cache, or as good as that."""
    ids = np.array([[*PROMPT, *tokens[:-1]]])
    length = ids.shape[1]
    with miniinfer_cli.load(miniinfer_cli.build(model), "cpu") as engine:
        feeds = {
            b.name: np.zeros((1, *b.shape[1:2], 0, *b.shape[3:]), b.dtype) for b in engine.inputs if b.name.startswith("past")
        }
        feeds |= {"input_ids": ids, "attention_mask": np.ones_like(ids), "position_ids": np.arange(length)[None]}
        logits = engine.run(feeds)["logits"][0, len(PROMPT) - 1 :]
    chosen = logits[np.arange(len(tokens)), tokens]
    return bool((chosen >= logits.max(-1) - _NEAR).all())


if __name__ == "__main__":
    sys.exit(demo(FOLDER / "generated"))
