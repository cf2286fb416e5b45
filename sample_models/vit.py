"""ViT-B/16 (Dosovitskiy et al. 2020) as timm has it: one projection for q, k and v, GELU by erf; 86 567 656 parameters."""

from sample_models.graph_writer import GraphWriter
from sample_models.layers import erf_gelu, gemm, layer_norm, linear
from sample_models.request import Request

OPSET = 17


def write(graph: GraphWriter, request: Request) -> None:
    """image [batch, 3, 224, 224] to logits [batch, 1000]; ``small``: two layers of 32, 4 heads, 32x32 in patches of 8."""
    width, layers, heads, size, patch, classes = (32, 2, 4, 32, 8, 10) if request.small else (768, 12, 12, 224, 16, 1000)
    tokens = (size // patch) ** 2 + 1
    image = graph.input("image", graph.dtype, [request.batch, 3, size, size])
    with graph.scope("patch_embed.proj"):
        kernel = graph.normal("weight", (width, 3, patch, patch), (3 * patch * patch) ** -0.5)
        sizes = {"kernel_shape": [patch, patch], "strides": [patch, patch], "pads": [0] * 4, "dilations": [1, 1]}
        x = graph.node("Conv", [image, kernel, graph.normal("bias", (width,), 0.02)], group=1, **sizes)
    batch = graph.size(x, 0, request.batch)
    x = graph.node("Transpose", [graph.reshape(x, [batch, width, tokens - 1])], perm=[0, 2, 1])
    start = graph.node("Expand", [graph.normal("cls_token", (1, 1, width), 0.5), graph.shape([batch, 1, width])])
    x = graph.node("Concat", [start, x], axis=1)
    x = graph.node("Add", [x, graph.normal("pos_embed", (1, tokens, width), 0.5)])
    for layer in range(layers):
        with graph.scope(f"blocks.{layer}"):
            y = _attention(graph, layer_norm(graph, "norm1", x, width, 1e-6), request.batch, tokens, width, heads)
            x = graph.node("Add", [x, y])
            y = linear(graph, "mlp.fc1", layer_norm(graph, "norm2", x, width, 1e-6), width, 4 * width)
            y = linear(graph, "mlp.fc2", erf_gelu(graph, "mlp.act", y), 4 * width, width)
            x = graph.node("Add", [x, y])
    x = graph.node("Gather", [layer_norm(graph, "norm", x, width, 1e-6), graph.constant(0)], axis=1)
    graph.output("logits", gemm(graph, "head", x, width, classes), graph.dtype, [request.batch, classes])


def _attention(graph: GraphWriter, x: str, known_batch: int | str, tokens: int, width: int, heads: int) -> str:
    with graph.scope("attn"):
        batch = graph.size(x, 0, known_batch)
        qkv = graph.reshape(linear(graph, "qkv", x, width, 3 * width), [batch, tokens, 3, heads, width // heads])
        qkv = graph.node("Transpose", [qkv], perm=[2, 0, 3, 1, 4])
        parts = graph.nodes("Split", [qkv, graph.constant([1, 1, 1])], outputs=3, axis=0)
        q, k, v = (graph.node("Squeeze", [part, graph.constant([0])]) for part in parts)
        q = graph.node("Mul", [q, graph.constant((width // heads) ** -0.5)])
        scores = graph.node("MatMul", [q, graph.node("Transpose", [k], perm=[0, 1, 3, 2])])
        y = graph.node("MatMul", [graph.node("Softmax", [scores], axis=-1), v])
        y = graph.reshape(graph.node("Transpose", [y], perm=[0, 2, 1, 3]), [batch, tokens, width])
        return linear(graph, "proj", y, width, width)
