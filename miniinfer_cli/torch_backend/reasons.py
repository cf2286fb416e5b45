"""Why a captured graph runs eagerly: one word, which tests and programs look at, and a sentence."""

import warnings
from collections import Counter

REASONS = {
    "gradients": "its results need gradients; call the model within torch.inference_mode() or torch.no_grad()",
    "writes": "it writes to its inputs or to a module's buffers",
    "random": "it draws random numbers, which would be others than PyTorch's",
    "autocast": "it runs under torch.autocast; convert the model instead, or give options={'precision': 'f16'}",
    "devices": "its tensors are not on one device, the CPU or a GPU of CUDA",
    "values": "it takes or gives something that is no tensor",
    "weights": "its weights change between calls",
    "sizes": "it was called with more sets of sizes than are exported",
    "export": "torch.onnx.export does not take it",
    "build": "miniinfer does not take it",
    "run": "the plan failed in a run",
}
"""The words, and what each means."""

taken: Counter[str] = Counter()
"""How many graphs were built (``built``), and how many run eagerly, by the word of the reason."""


class NotTaken(Exception):
    """A graph runs eagerly. ``word`` is one of REASONS."""

    def __init__(self, word: str, detail: str = "") -> None:
        super().__init__(f"{REASONS[word]}{f' ({detail})' if detail else ''}")
        self.word = word


def tell(reason: NotTaken) -> None:
    """Counts and warns, once for each graph."""
    taken[reason.word] += 1
    told = f"torch.compile(backend='miniinfer'): a graph runs eagerly, [{reason.word}] {reason}"
    warnings.warn(told, UserWarning, stacklevel=2)
