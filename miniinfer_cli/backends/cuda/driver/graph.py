"""Graphs: captured work that is launched as one."""

from typing import Any

from miniinfer_cli.backends.cuda.driver.handle import Handle, Owner


class Graph(Handle):
    """Captured work, ready to launch with ``stream.launch_graph``. Launches of one graph run one after the other.

    ``nodes`` is how many kernels, copies, fills and events it has, those of inner graphs included; ``kernels`` how many kernels.
    It holds addresses only: the memory, and whatever library objects took part, must outlive it.
    """

    def __init__(self, device: Owner, template: Any) -> None:
        """Use ``stream.end_capture``. ``template`` is the CUgraph, which stays the caller's."""
        driver = device.driver
        types = list(_node_types(device, template))
        self.raw = device.call(driver.cuGraphInstantiate, template, 0)
        super().__init__(device, driver.cuGraphExecDestroy, self.raw)
        self.handle = int(self.raw)
        self.nodes = len(types)
        self.kernels = types.count(driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL)

    def upload(self, stream: Any) -> None:
        """Moves what the graph needs to the device, so that the first launch is as fast as the others."""
        self._device.call(self._device.driver.cuGraphUpload, self.raw, stream.raw)


def _node_types(device: Owner, graph: Any) -> "list[Any]":
    driver = device.driver
    inner = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_GRAPH
    count = device.call(driver.cuGraphGetNodes, graph, 0)[1]
    # Asked for no nodes, the driver would give their number again.
    nodes = device.call(driver.cuGraphGetNodes, graph, count)[0] if count else []
    types: list[Any] = []
    for node in nodes:
        kind = device.call(driver.cuGraphNodeGetType, node)
        if kind == inner:
            types += _node_types(device, device.call(driver.cuGraphChildGraphNodeGetGraph, node))
        else:
            types.append(kind)
    return types
