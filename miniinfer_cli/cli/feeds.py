"""Inputs from files, outputs to files, and the largest entries of an output."""

import io
import math
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from miniinfer_cli.cli.outputs import opened_for_writing
from miniinfer_cli.errors import UsageError, refused
from miniinfer_cli.ir import TensorType, dtype_of
from miniinfer_cli.ir.array_files import DAMAGED
from miniinfer_cli.pipes import pipe_contents
from miniinfer_cli.runtime.bindings import Binding, defaults_of, hint_of_inputs
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.runtime.random_inputs import random_inputs

ARCHIVES = (b"PK\x03\x04", b"PK\x05\x06")
"""How an .npz file begins, with and without members."""
_MAGIC_NBYTES = 6


def feeds_for(engine: Engine, given: Mapping[str, Any], shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Any]:
    """An array for every input: those ``given`` by name, defaults as they are, the others random.

    ``shapes`` must be those of the given arrays, too; an input with a default that it names is random.
    """
    defaults = defaults_of([b for b in engine.inputs if b.name not in shapes])
    return random_inputs(engine.inputs, engine.ranges, shapes, {**defaults, **given}, seed)


def read_inputs(
    inputs: Sequence[Binding],
    files: Sequence[tuple[str, Path]],
    shapes: Mapping[str, Sequence[int]],
    constants: Collection[str] = (),
) -> dict[str, Any]:
    """The arrays of ``files`` by the name of the input; ``shapes`` must be theirs, too, where it has them.

    ``constants``: inputs of the model that the plan has as constants.
    """
    bindings = {b.name: b for b in inputs}
    given: dict[str, Any] = {}
    for name, path in files:
        if name not in bindings:
            hint = hint_of_inputs(inputs, [name], constants)
            raise UsageError(f"--input {name}={path}: there is no such input", hint=hint)
        if name in given:
            raise UsageError(f"--input {name}={path}: the input is given twice", hint="leave one of them out")
        shape = shapes.get(name)
        given[name] = array = read_array(path, bindings[name], shape)
        if shape is not None and array.shape != tuple(shape):
            hint = f"leave --shapes out, or give {_by_x(array.shape)}"
            raise UsageError(
                f"--input {name}={path}: its shape is {_by_x(array.shape)}, but --shapes says {_by_x(shape)}", hint=hint
            )
    return given


def read_array(path: Path, binding: Binding, shape: Sequence[int] | None) -> Any:
    """The array in a file, by its ending: .npy, .npz, .pb (a TensorProto), anything else raw little-endian bytes.

    A raw file needs a shape: the binding's own, or ``shape``; one open dimension follows from the file's size. A pipe is
    read to its end.
    Raises UsageError when the file cannot be read or does not hold what it should.
    """
    try:
        if path.suffix in (".npy", ".npz"):
            return _named_type(_from_numpy(path, binding.name), binding)
        if path.suffix == ".pb":
            from miniinfer_cli.onnx_import.tensor_file import read_tensor  # late: brings onnx, only for this kind of file

            return read_tensor(path)
        return _from_raw(path, binding, shape)
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror or error}", path) from None
    except DAMAGED as error:
        raise UsageError(
            f"does not hold an array: {error}", hint="write it by np.save, np.savez or TensorProto.SerializeToString"
        ).at(str(path)) from None


def read_arrays(path: Path, contents: bytes | None = None) -> dict[str, Any]:
    """The arrays of an .npz file by name; ``contents``: what it holds, where that was read already.

    Raises UsageError when the file cannot be read or does not hold what it should.
    """
    try:
        with path.open("rb") if contents is None else io.BytesIO(contents) as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it is an .npy file")
            found = {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise refused(error, f"cannot be read: {error.strerror or error}", path) from None
    except (*DAMAGED, IndexError, TypeError) as error:
        hint = "write it by miniinfer run --output, or np.savez(file, name=array)"
        what = "it holds Python objects" if "allow_pickle" in str(error) else error
        raise UsageError(f"does not hold arrays by name: {what}", hint=hint).at(str(path)) from None
    for name, array in found.items():
        try:
            dtype_of(array)
        except (AttributeError, ValueError):
            what = f"of type {array.dtype}" if isinstance(array, np.ndarray) else "no array"
            hint = "save what numpy has no type for as float32, as miniinfer run --output does"
            raise UsageError(f"{name!r} in it is {what}, which cannot be compared", hint=hint).at(str(path)) from None
    return found


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Saves tensors by name into an .npz file. Raises UsageError when one is not a tensor, and as ``opened_for_writing``."""
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or value.dtype == object:
            raise UsageError(f"output {name!r} is not a numeric tensor; an .npz file cannot hold it").at(str(path))
    # np.savez takes no output called "file".
    with opened_for_writing(path) as sink, zipfile.ZipFile(sink, "w", allowZip64=True) as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asanyarray(_storable(value)), allow_pickle=False)


def top_entries(array: Any, k: int) -> list[list[tuple[int, float]]]:
    """For each row (the last axis) of a numeric array, its ``k`` largest entries as (index, value), largest first."""
    rows = np.asarray(array, np.float64).reshape(math.prod(array.shape[:-1]), array.shape[-1] if array.ndim else 1)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :k]
    return [[(int(i), float(row[i])) for i in picks] for row, picks in zip(rows, order, strict=True)]


def _from_numpy(path: Path, name: str) -> Any:
    """The array of an .npy file, or the one called ``name``, or the only one, of an .npz file: their first bytes tell which."""
    contents = pipe_contents(path)
    with path.open("rb") if contents is None else io.BytesIO(contents) as file:  # np.load leaves a damaged archive open
        first = file.read(_MAGIC_NBYTES)
        if not first.startswith((np.lib.format.MAGIC_PREFIX, *ARCHIVES)):
            what = "is neither an .npy nor an .npz file" if first else "is empty"
            raise UsageError(what, hint="write it by np.save or np.savez").at(str(path))
        file.seek(0)
        try:
            return _array_in(np.load(file, allow_pickle=False), path, name)
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            hint = "save an array of numbers, or of text: np.save(file, array.astype(str))"
            raise UsageError("holds Python objects, which are not read", hint=hint).at(str(path)) from None
        except (IndexError, TypeError) as error:  # a header whose parts are of types that numpy does not look for
            raise ValueError(str(error)) from None


def _array_in(loaded: Any, path: Path, name: str) -> Any:
    if isinstance(loaded, np.ndarray):
        return loaded
    if name not in loaded and len(loaded.files) != 1:
        raise UsageError(f"has no array {name!r}, only {', '.join(loaded.files) or 'nothing'}").at(str(path))
    member = name if name in loaded else loaded.files[0]
    array = loaded[member]
    if not isinstance(array, np.ndarray):  # but the bytes of a file
        raise ValueError(f"{member!r} in it is no .npy file")
    return array


def _from_raw(path: Path, binding: Binding, shape: Sequence[int] | None) -> Any:
    dtype, kind = binding.dtype, binding.type
    wanted: Sequence[int | str] | None = shape if shape is not None else binding.shape
    if dtype is None or not isinstance(kind, TensorType) or dtype.hasobject or wanted is None:
        raise UsageError(f"raw bytes cannot be read for input {binding}", hint="give an .npy or .pb file").at(str(path))
    contents = pipe_contents(path)
    data = np.fromfile(path, np.uint8) if contents is None else np.frombuffer(bytearray(contents), np.uint8)
    sizes = [d for d in wanted if isinstance(d, int)]
    known = math.prod(sizes) * dtype.itemsize
    open_dims = len(wanted) - len(sizes)
    fits = known > 0 and data.size > 0 and data.size % known == 0 if open_dims == 1 else data.size == known and not open_dims
    if not fits:
        takes = f"input {binding.name!r} is {kind.dtype}[{','.join(map(str, wanted))}], {dtype.itemsize} bytes an element"
        raise _wrong_size(data.size, known, takes, binding.name, [d for d in wanted if isinstance(d, str)]).at(str(path))
    rest = data.size // known if open_dims else 0
    return data.view(dtype).reshape([d if isinstance(d, int) else rest for d in wanted])


def _wrong_size(got: int, known: int, takes: str, name: str, open_dims: Sequence[str]) -> UsageError:
    """What is wrong with a raw file of ``got`` bytes, where the sizes that are known make ``known`` bytes."""
    shapes = f"give --shapes {name}:..."
    if not open_dims:
        return UsageError(f"holds {got} bytes, expected {known}: {takes}")
    if len(open_dims) > 1 or not known:
        return UsageError(f"holds {got} bytes, which do not tell {', '.join(open_dims)}: {takes}", hint=shapes)
    if not got:
        hint = f"{shapes} if {open_dims[0]} is 0"
        return UsageError(f"is empty, expected a multiple of {known} bytes: {takes}", hint=hint)
    return UsageError(f"holds {got} bytes, expected a multiple of {known}: {takes}", hint=f"{shapes} if the sizes are others")


def _named_type(array: Any, binding: Binding) -> Any:
    """numpy saves the types of ml_dtypes as bare bytes; the binding says what they were."""
    dtype = binding.dtype
    if array.dtype.kind == "V" and array.dtype.names is None and dtype is not None and dtype.itemsize == array.dtype.itemsize:
        return array.view(dtype)
    return array


def _storable(array: Any) -> Any:
    """Types that only ml_dtypes knows are stored as f32: a reader without it could not open the file."""
    return array if array.dtype.kind in "biufc" else array.astype(np.float32)


def _by_x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "that of a scalar"
