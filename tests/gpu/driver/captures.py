"""What a capture has noted so far, as the driver counts it."""

from collections import Counter

from miniinfer_cli.backends.cuda.driver.device import Device
from miniinfer_cli.backends.cuda.driver.stream import Stream


def count_nodes(device: Device, stream: Stream) -> Counter[str]:
    """How many nodes of each kind the capture on ``stream`` has: KERNEL, MEMCPY, MEMSET, EVENT_RECORD ..."""
    driver = device.driver
    graph = device.call(driver.cuStreamGetCaptureInfo, stream.raw)[2]
    count = device.call(driver.cuGraphGetNodes, graph, 0)[1]
    nodes = device.call(driver.cuGraphGetNodes, graph, count)[0]
    kinds = (device.call(driver.cuGraphNodeGetType, node).name for node in nodes)
    return Counter(kind.removeprefix("CU_GRAPH_NODE_TYPE_") for kind in kinds)
