"""Graphs: captured work that is launched as one."""

from typing import Any

from miniinfer_cli.backends.cuda.driver.handle import Handle, Owner


class Graph(Handle):
    """Captured work, ready to launch with ``stream.launch_graph``. Launches of one graph run one after the other.

    It holds addresses only: the memory, and whatever library objects took part, must outlive it.
    """

    def __init__(self, device: Owner, template: Any) -> None:
        """Use ``stream.end_capture``. ``template`` is the CUgraph, which stays the caller's."""
        driver = device.driver
        self.raw = int(device.call(driver.cuGraphInstantiate, template, 0))
        super().__init__(device, driver.cuGraphExecDestroy, self.raw)
