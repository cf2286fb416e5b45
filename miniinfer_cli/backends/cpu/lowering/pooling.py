"""Channels-last pooling straight into the arena."""

from collections.abc import Sequence
from typing import Any

from miniinfer_cli.backends.cpu.routine import Routine, Site, each_time, lowers
from miniinfer_cli.ir import Array, DType
from miniinfer_cli.ops.pool import average_pool, max_pool
from miniinfer_cli.ops.windows import Window, window


@lowers("MaxPoolNHWC", domain="miniinfer")
def lower_max_pool(site: Site) -> Routine | None:
    """The maximum over shifted views."""
    geometry = _geometry(site)

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        max_pool(inputs[0], geometry, 1, out=outputs[0])

    return Routine(each_time(run), tactic="shifted maxima")


@lowers("AveragePoolNHWC", domain="miniinfer")
def lower_average_pool(site: Site) -> Routine | None:
    """The mean over shifted views."""
    if site.outputs[0].dtype not in (DType.F32, DType.F64):
        return None
    geometry = _geometry(site)
    include = bool(site.node.attrs.get("count_include_pad", 0))

    def run(inputs: Sequence[Any], outputs: Sequence[Array], scratch: Array) -> None:
        average_pool(inputs[0], geometry, 1, include, out=outputs[0])

    return Routine(each_time(run), tactic="shifted sums")


def _geometry(site: Site) -> Window:
    attrs = site.node.attrs
    names = ("strides", "dilations", "pads", "auto_pad", "ceil_mode")
    return window(site.node.op, attrs["kernel_shape"], **{k: attrs[k] for k in names if k in attrs})
