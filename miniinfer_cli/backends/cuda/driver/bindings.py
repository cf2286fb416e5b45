"""The one place that imports cuda.bindings, late: what runs on the CPU must not need it, or pay for loading it."""

from typing import Any

from miniinfer_cli.errors import DeviceError
from miniinfer_cli.wording import Wording


def load_driver() -> Any:
    """The module ``cuda.bindings.driver``. Hold on to it: a look-up in each call would cost more than the call.

    Raises DeviceError when the package is not installed.
    """
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise _not_installed(error) from None
    return driver


def load_nvrtc() -> Any:
    """The module ``cuda.bindings.nvrtc``; needs no driver and no GPU. Raises DeviceError when it is not installed."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise _not_installed(error) from None
    return nvrtc


def _not_installed(error: ImportError) -> DeviceError:
    return DeviceError(
        f"cuda.bindings cannot be imported: {error}",
        hint=Wording(
            "pip install 'cuda-bindings>=13,<14'; or use load(plan, device='cpu')",
            flags="pip install 'cuda-bindings>=13,<14'; or use --device cpu",
        ),
    )
