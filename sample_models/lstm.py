"""A tagger: embedding, two bidirectional LSTM layers, a linear layer, as PyTorch exports nn.LSTM; 3 017 748 parameters."""

import numpy as np
from onnx import numpy_helper

from sample_models.graph_writer import GraphWriter
from sample_models.layers import linear
from sample_models.request import Request

OPSET = 14
LAYERS = 2
TAGS = 20


def write(graph: GraphWriter, request: Request) -> None:
    """input_ids [batch, seq] to logits [batch, seq, 20]; ``small``: embedding 8, hidden 12, 61 tokens."""
    tokens, width, hidden = (61, 8, 12) if request.small else (5000, 128, 256)
    ids = graph.input("input_ids", "int64", [request.batch, request.seq], high=tokens)
    x = graph.node("Gather", [graph.normal("embedding.weight", (tokens, width), 1.0), ids])
    with graph.scope("lstm"):
        batch = graph.size(x, 0, request.batch)
        zero = numpy_helper.from_array(np.zeros(1, graph.dtype))
        state = graph.node("ConstantOfShape", [graph.shape([2 * LAYERS, batch, hidden])], value=zero)
        x = graph.node("Transpose", [x], perm=[1, 0, 2])
        for layer in range(LAYERS):
            x = _layer(graph, x, state, layer, width if layer == 0 else 2 * hidden, hidden)
        x = graph.node("Transpose", [x], perm=[1, 0, 2])
    graph.output(
        "logits", linear(graph, "classifier", x, 2 * hidden, TAGS, gain=2), graph.dtype, [request.batch, request.seq, TAGS]
    )


def _layer(graph: GraphWriter, x: str, state: str, layer: int, width: int, hidden: int) -> str:
    """[seq, batch, width] to [seq, batch, 2 * hidden]: both directions side by side."""
    bounds = [graph.constant([2 * layer]), graph.constant([2 * layer + 2]), graph.constant([0])]
    start, memory = graph.node("Slice", [state, *bounds]), graph.node("Slice", [state, *bounds])
    weights = [
        graph.normal(f"weight_ih_l{layer}", (2, 4 * hidden, width), 2 * width**-0.5),
        graph.normal(f"weight_hh_l{layer}", (2, 4 * hidden, hidden), 2 * hidden**-0.5),
        graph.normal(f"bias_l{layer}", (2, 8 * hidden), 0.1),
    ]
    attributes = {"direction": "bidirectional", "hidden_size": hidden}
    y = graph.nodes("LSTM", [x, *weights, None, start, memory], outputs=3, **attributes)[0]
    y = graph.node("Transpose", [y], perm=[0, 2, 1, 3])
    return graph.node("Reshape", [y, graph.constant([0, 0, -1])])
