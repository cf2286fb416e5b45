"""The files that a command reads: which they are, so that nothing is written over them, and the model as it is to be read."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from miniinfer_cli.cli.outputs import Source, is_regular
from miniinfer_cli.errors import refused
from miniinfer_cli.pipes import pipe_contents
from miniinfer_cli.plugins import plugin_files


def sources(about: Path, *, inputs: Iterable[tuple[str, Path]] = (), plugins: Sequence[str] = ()) -> Iterator[Source]:
    """``about``, the plan or model that the command is about, the files of its inputs, and the plugins, which are imported.

    Raises UsageError when a plugin cannot be imported.
    """
    yield Source(about)
    for name, path in inputs:
        yield Source(path, f"the input {name!r}")
        if path.suffix == ".pb" and is_regular(path):
            from miniinfer_cli.onnx_import.data_files import tensor_data_files  # late: brings onnx, only for this kind of file

            yield from (Source(file, f"the data of the input {name!r}") for file in tensor_data_files(path))
    yield from (Source(file, "a plugin") for file in plugin_files(plugins))


def key_source(key: Path | None) -> list[Source]:
    """The key of a flag, where it is given."""
    return [] if key is None else [Source(key, "the key")]


def cache_source(cache: Path | None) -> list[Source]:
    """The timing cache of a flag, where it is given."""
    return [] if cache is None else [Source(cache, "the timing cache")]


def model_sources(model: Path, *, inputs: Iterable[tuple[str, Path]] = (), plugins: Sequence[str] = ()) -> Iterator[Source]:
    """The same for an ONNX model, with the files of its data. Raises what ``data_files`` raises, too."""
    from miniinfer_cli.onnx_import.data_files import data_files  # late: brings onnx, which a plan does not need

    yield from sources(model, inputs=inputs, plugins=plugins)
    if is_regular(model):
        yield from (Source(file, "data of the model") for file in data_files(model))


def model_source(model: Path) -> Path | bytes:
    """The model as it is to be read: a file, or what came through a pipe, which can be read once only.

    Raises UsageError or PlanFileError where it cannot be opened, as ``refused`` says.
    """
    try:
        contents = pipe_contents(model)
    except OSError as error:
        raise refused(error, f"the model {str(model)!r} cannot be opened: {error.strerror}") from None
    return model if contents is None else contents
