"""RotaryEmbedding of com.microsoft."""

from collections.abc import Sequence

from miniinfer_cli.errors import ModelError
from miniinfer_cli.ir import Value
from miniinfer_cli.onnx_import.call import Call
from miniinfer_cli.onnx_import.contributed.heads import positions
from miniinfer_cli.onnx_import.registry import FLOAT, INT, contributed

_ROTARY = {"interleaved": INT, "is_packed_batching": INT, "num_heads": INT, "rotary_embedding_dim": INT, "scale": FLOAT}


@contributed("RotaryEmbedding", _ROTARY, (4, 4), fixed={"is_packed_batching": 0, "scale": 1.0})
def rotary_embedding(call: Call) -> Sequence[Value]:
    """RotaryEmbedding by positions: one row for each of the batch, or one number that the first element stands at."""
    x, ids, cos, sin = (call.required(i) for i in range(4))
    rank = call.rank(x)
    length = call.emit("Shape", x, start=rank - 2, end=rank - 1) if rank == 4 else call.emit("Shape", x, start=1, end=2)
    if call.rank(ids) == 1:
        batch = call.emit("Shape", x, start=0, end=1)
        ids = call.emit(
            "Expand", call.emit("Add", ids, positions(call, length, "place")), call.emit("Concat", batch, length, axis=0)
        )
    turned = call.attrs.get("rotary_embedding_dim", 0)
    heads = call.attrs.get("num_heads", 0)
    if rank == 3 and not heads:
        hidden, size = call.last_size(x), turned or 2 * call.last_size(cos)
        if size < 1 or hidden % size:
            raise ModelError(f"{call.op} turns {size} elements of a head, which do not divide the last size of {x.type}")
        heads = hidden // size
    return call.result(
        "RotaryEmbedding", x, cos, sin, ids, domain="",
        interleaved=call.attrs.get("interleaved", 0), num_heads=heads, rotary_embedding_dim=turned,
    )  # fmt: skip
