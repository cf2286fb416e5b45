"""The exceptions that onnxruntime raises, by its names, and which of them a fault of ours is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from miniinfer_cli.errors import (
    DeviceError,
    LimitExceeded,
    MiniinferError,
    ModelError,
    OutOfMemoryError,
    PlanFileError,
    UsageError,
)

PLUGINS = "MINIINFER_ORT_PLUGINS"
"""The environment variable that names modules with operations of the user's own, between commas."""


class OrtFault(Exception):
    """What all of them have: the text begins as that of onnxruntime's does, by which programs tell them apart."""

    code: ClassVar[int] = 1
    status: ClassVar[str] = "FAIL"

    def __init__(self, message: str) -> None:
        super().__init__(f"[ONNXRuntimeError] : {self.code} : {self.status} : {message}")


class Fail(OrtFault):
    """Whatever has no name of its own."""


class InvalidArgument(OrtFault):
    """An argument or an input does not fit."""

    code, status = 2, "INVALID_ARGUMENT"


class NoSuchFile(OrtFault):
    """There is no file of this name."""

    code, status = 3, "NO_SUCHFILE"


class NoModel(OrtFault):
    """No model was loaded."""

    code, status = 4, "NO_MODEL"


class EngineError(OrtFault):
    """The engine failed."""

    code, status = 5, "ENGINE_ERROR"


class RuntimeException(OrtFault):
    """An inference failed."""

    code, status = 6, "RUNTIME_EXCEPTION"


class InvalidProtobuf(OrtFault):
    """The file is no ONNX model."""

    code, status = 7, "INVALID_PROTOBUF"


class ModelLoaded(OrtFault):
    """A model was loaded already."""

    code, status = 8, "MODEL_LOADED"


class Unsupported(OrtFault):
    """There is no way of doing it. onnxruntime calls it NotImplemented, which is Python's word for something else."""

    code, status = 9, "NOT_IMPLEMENTED"


Unsupported.__name__ = Unsupported.__qualname__ = "NotImplemented"


class InvalidGraph(OrtFault):
    """The model is not sound."""

    code, status = 10, "INVALID_GRAPH"


class EPFail(OrtFault):
    """The device is not there, or failed."""

    code, status = 11, "EP_FAIL"


@contextmanager
def told_as(of_model: type[OrtFault]) -> Iterator[None]:
    """Raises what is raised within as onnxruntime would name it; ``of_model``: what a ModelError is here."""
    try:
        yield
    except MiniinferError as error:
        if isinstance(error, UsageError):
            of_run = of_model is RuntimeException
            told = "session.get_inputs() tells the inputs with their types and sizes"
            error.suggest(told if of_run else "docs/onnxruntime.md tells what a session takes")
        raise _kind_of(error, of_model)(str(error).replace("plugins=[MODULE]", f"{PLUGINS}=MODULE")) from error


def _kind_of(error: MiniinferError, of_model: type[OrtFault]) -> type[OrtFault]:
    match error:
        case UsageError():  # an InputDataError among them
            return InvalidArgument
        case ModelError():
            return of_model
        case DeviceError():
            return EPFail
        case PlanFileError() | OutOfMemoryError() | LimitExceeded():
            return Fail if isinstance(error, PlanFileError) else RuntimeException
        case _:
            return Fail
