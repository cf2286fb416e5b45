"""From a closed graph to an engine: torch.onnx.export, build, load."""

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx

from miniinfer_cli.builder.building import build_with
from miniinfer_cli.devices.opening import load_with
from miniinfer_cli.errors import DeviceError, MiniinferError, UsageError
from miniinfer_cli.runtime.engine import Engine
from miniinfer_cli.serving.layout import draws
from miniinfer_cli.torch_backend.reasons import NotTaken


def export_and_open(
    graph: fx.GraphModule,
    tensors: Sequence[Any],
    open_dims: Sequence[Sequence[int]],
    device: str,
    options: Mapping[str, Any],
    loading: Mapping[str, Any],
) -> Engine:
    """The engine of a graph for ``tensors`` like these, of any size along ``open_dims`` of each.

    ``options`` are those of ``build()``, ``loading`` those of ``load()``. The inputs are ``x0``, ``x1`` ...
    Raises NotTaken, and UsageError for options that are not there.
    """
    with tempfile.TemporaryDirectory(prefix="miniinfer-torch-") as folder:  # the plan is mapped, and stays when it is gone
        model, plan = Path(folder) / "model.onnx", Path(folder) / "model.plan"
        _export(graph, tensors, open_dims, model)
        try:
            build_with(model, plan, options)
            engine = load_with(plan, device, loading)
        except (UsageError, DeviceError):
            raise
        except MiniinferError as error:
            raise NotTaken("build", str(error).splitlines()[0]) from error
    if draws(engine.graph):
        engine.close()
        raise NotTaken("random")
    return engine


def _export(graph: fx.GraphModule, tensors: Sequence[Any], open_dims: Sequence[Sequence[int]], path: Path) -> None:
    inputs = [f"x{i}" for i in range(len(tensors))]
    by_torch_export = importlib.util.find_spec("onnxscript") is not None
    try:
        # Exporters say much, to standard output and to loggers, that is nobody's here.
        with contextlib.redirect_stdout(io.StringIO()), _quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if by_torch_export:
                sizes = tuple(dict.fromkeys(dims, torch.export.Dim.AUTO) for dims in open_dims)
                program = torch.onnx.export(
                    graph, tuple(tensors), input_names=inputs, dynamo=True, dynamic_shapes=sizes, verbose=False, optimize=True
                )
                program.save(str(path), external_data=True)
            else:
                axes = {name: {d: f"{name}_{d}" for d in dims} for name, dims in zip(inputs, open_dims, strict=True) if dims}
                torch.onnx.export(
                    graph, tuple(tensors), str(path), input_names=inputs, dynamic_axes=axes, opset_version=17, dynamo=False
                )
    except Exception as error:  # whatever the exporter raises, the graph can still be run eagerly
        first = (str(error).strip().splitlines() or [""])[0]
        raise NotTaken("export", f"{type(error).__name__}: {first}") from error


@contextlib.contextmanager
def _quiet() -> Any:
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
