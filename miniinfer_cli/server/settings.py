"""What a server is told to do: how plans are opened and batched, what a request may take, how connections are kept."""

from dataclasses import dataclass

from miniinfer_cli.backends.interface import DEFAULT_OPTIONS, DeviceOptions

SWITCH_S = 2e-4
"""Until a thread that computes in Python lets others go on (``sys.setswitchinterval``): Python's own 5 ms are longer than most
batches, and so long would wait who has a result of the GPU, or a batch to begin.
"""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How plans are opened and batched; ``priorities``: levels, of which a request's 1 is the highest."""

    device: str = "auto"
    max_batch: int | None = None
    batch_sizes: tuple[int, ...] | None = None
    max_delay_ms: float = 0.0
    max_queue: int = 1024
    contexts: int | None = None
    priorities: int = 3
    warm_up: bool = True
    copy_threads: int = 0
    engine: DeviceOptions = DEFAULT_OPTIONS


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """``body_nbytes`` of a request at most; ``read_s``: in which it must have come; ``answer_s``: in which it is computed."""

    body_nbytes: int = 64 << 20
    read_s: float = 30.0
    answer_s: float | None = None


@dataclass(frozen=True, slots=True)
class Connections:
    """How connections are kept. ``head_s``: in which the head of a request must have come; ``idle_s``: after which an idle
    connection is closed; ``lame_s``: that the server goes on, not ready, once it is told to end; ``drain_s``: that what is under
    way has then.
    """

    head_s: float = 30.0
    idle_s: float = 75.0
    lame_s: float = 0.0
    drain_s: float = 30.0
