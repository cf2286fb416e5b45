"""Files of inputs: arrays of any type and shape as .npy, .npz, .pb and raw bytes, whole and damaged."""

import io
import random
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from tests.fuzz.semantic import edges, seeds


def commands_on_inputs(rng: random.Random, folder: Path) -> list[list[str]]:
    """Builds a model of the suite and runs it on files, which ``folder`` gets."""
    seed = rng.choice(seeds.suite_models())
    (folder / "m.onnx").write_bytes(seed.data)
    words = []
    for number, value in enumerate(seed.model().graph.input):
        if rng.random() < 0.15:
            continue
        given = seed.values[number] if number < len(seed.values) and rng.random() < 0.7 else None
        array = _array(rng, given if isinstance(given, np.ndarray) else None)
        ending = rng.choice((".npy", ".npy", ".npz", ".pb", ".raw", ""))
        path = folder / f"in{number}{ending}"
        data = _file(rng, array, value.name, ending)
        path.write_bytes(_damaged(rng, data) if rng.random() < 0.4 else data)
        words += ["--input", f"{value.name}={path.name}"]
        if rng.random() < 0.15:
            words += ["--shapes", f"{value.name}:{'x'.join(map(str, array.shape))}"]
    return [["build", "m.onnx", "-q"], ["run", "m.plan", *words, *RUN]]


RUN = (
    "-q", "--device", "cpu", "--iterations", "1", "--duration", "0", "--warmup", "0", "--time-limit", "5", "--memory-limit", "1G",
)  # fmt: skip
"""Flags of ``run`` for one inference, under both limits: what it takes follows from the sizes that a case asks for."""


_PARTS = (b"9" * 12, b"-1", b"(", b"'O'", b"\xff\xff\xff\xff", b"\0\0", b"True, ", b"(),", b"{},")
"""What takes the place of bytes: numbers, and pieces of the headers that numpy reads as Python's literals."""


def _array(rng: random.Random, given: np.ndarray | None) -> np.ndarray:
    if given is None or rng.random() < 0.2:
        drawn = edges.tensor(rng, "x")
        given = np.array(["a", "b"]) if drawn.data_type == onnx.TensorProto.STRING else numpy_helper.to_array(drawn)
    if rng.random() < 0.3 and given.size and given.dtype.kind in "iuf":
        given = given.copy()
        with np.errstate(all="ignore"):
            value = rng.choice(edges.FLOATS) if given.dtype.kind == "f" else edges.integer(rng)
            given.reshape(-1)[rng.randrange(given.size)] = np.array(value).astype(given.dtype)
    if rng.random() < 0.15:
        with np.errstate(all="ignore"):
            given = (
                given.astype(rng.choice(("f4", "i8", "f2", "?", ">f4", "c8", "U3", "M8[s]", "u1")), casting="unsafe")
                if (given.dtype.kind in "iufb")
                else given
            )
    return given.reshape(-1) if rng.random() < 0.1 else given


def _file(rng: random.Random, array: np.ndarray, name: str, ending: str) -> bytes:
    buffer = io.BytesIO()
    if ending == ".npy":
        np.save(buffer, np.asfortranarray(array) if rng.random() < 0.2 else array, allow_pickle=True)
    elif ending == ".npz":
        member = name if rng.random() < 0.7 else rng.choice(("other", "", "a/b"))
        np.savez(buffer, **{member or "arr": array})
    elif ending == ".pb":
        try:
            return numpy_helper.from_array(array, name).SerializeToString()
        except (KeyError, ValueError, NotImplementedError):
            return edges.tensor(rng, name).SerializeToString()
    else:
        return b"" if array.dtype == object else array.tobytes()
    return buffer.getvalue()


def _damaged(rng: random.Random, data: bytes) -> bytes:
    buffer = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(min(len(buffer), rng.choice((12, 150, 1 << 20))) + 1)
        end = min(len(buffer), at + rng.choice((1, 2, 8)))
        match rng.randrange(4):
            case 0 if at < len(buffer):
                buffer[at] = rng.randrange(256)
            case 1:
                del buffer[at:]
            case 2:
                buffer[at:end] = rng.choice(_PARTS)
            case _:
                buffer[at:at] = buffer[at:end] * rng.choice((1, 1, 40))
    return bytes(buffer)
