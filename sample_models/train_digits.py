"""Trains the digits network on the UCI optical digits in plain numpy; writes digits.onnx and the held-out images.

    pip install -e .[train] && python -m sample_models.train_digits

The data: 1 797 images of 8x8 pixels, grey levels 0 to 16, from 43 writers (E. Alpaydin, C. Kaynak: Optical Recognition
of Handwritten Digits, UCI Machine Learning Repository, 1998, CC BY 4.0), as scikit-learn carries them.

The split: a permutation seeded with SEED; its last 360 images are held out. They are used for nothing but the accuracy
printed at the end and the committed digits_test.npz: nothing here was chosen by them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from sklearn.datasets import load_digits

from sample_models.graph_writer import GraphWriter

SEED = 20240
HELD_OUT = 360
EPOCHS = 40
BATCH = 32
FOLDER = Path(__file__).parent

Array = np.ndarray


class Parameter:
    """A trained array, its gradient, and Adam's two moments."""

    def __init__(self, value: Array) -> None:
        self.value = value.astype(np.float32)
        self.gradient = np.zeros_like(self.value)
        self.mean, self.square = np.zeros_like(self.value), np.zeros_like(self.value)

    def step(self, rate: float, count: int) -> None:
        """One update of Adam (betas 0.9 and 0.999), the ``count``-th."""
        self.mean += 0.1 * (self.gradient - self.mean)
        self.square += 0.001 * (self.gradient**2 - self.square)
        self.value -= rate * (self.mean / (1 - 0.9**count)) / (np.sqrt(self.square / (1 - 0.999**count)) + 1e-8)


class Layer:
    """What all layers have: parameters, ``forward(x)`` and ``backward(gradient)``, which fills the parameters' gradients."""

    parameters: tuple[Parameter, ...] = ()

    def forward(self, x: Array, training: bool) -> Array:
        """The output for ``x`` [n, ...]; keeps what backward needs."""
        raise NotImplementedError

    def backward(self, gradient: Array) -> Array:
        """The gradient of the input, given the output's."""
        raise NotImplementedError

    def write(self, graph: GraphWriter, x: str) -> str:
        """Add this layer to the ONNX graph after the value ``x``; the name of its output."""
        raise NotImplementedError


class Conv3x3(Layer):
    """Convolution, 3x3, padding 1, no bias."""

    def __init__(self, rng: np.random.Generator, channels: int, out: int) -> None:
        self.weight = Parameter(rng.normal(0, np.sqrt(2 / (9 * channels)), (out, channels, 3, 3)))
        self.parameters = (self.weight,)

    def forward(self, x: Array, training: bool) -> Array:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        self.windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))  # n c h w 3 3
        return np.einsum("nchwij,kcij->nkhw", self.windows, self.weight.value, optimize=True)

    def backward(self, gradient: Array) -> Array:
        self.weight.gradient = np.einsum("nkhw,nchwij->kcij", gradient, self.windows, optimize=True)
        padded = np.pad(gradient, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        return np.einsum("nkhwij,kcij->nchw", windows, self.weight.value[:, :, ::-1, ::-1], optimize=True)

    def write(self, graph: GraphWriter, x: str) -> str:
        weight = graph.weight("weight", self.weight.value)
        return graph.node("Conv", [x, weight], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], dilations=[1, 1], group=1)


class BatchNorm(Layer):
    """Batch normalisation over n, h and w; running statistics with momentum 0.9."""

    def __init__(self, channels: int) -> None:
        self.scale, self.shift = Parameter(np.ones(channels)), Parameter(np.zeros(channels))
        self.mean, self.variance = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        self.parameters = (self.scale, self.shift)

    def forward(self, x: Array, training: bool) -> Array:
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
            self.mean += 0.1 * (mean - self.mean)
            self.variance += 0.1 * (variance - self.variance)
        self.deviation = np.sqrt(variance + 1e-5)[:, None, None]
        self.normal = (x - mean[:, None, None]) / self.deviation
        return self.normal * self.scale.value[:, None, None] + self.shift.value[:, None, None]

    def backward(self, gradient: Array) -> Array:
        self.shift.gradient = gradient.sum((0, 2, 3))
        self.scale.gradient = (gradient * self.normal).sum((0, 2, 3))
        count = gradient.size / gradient.shape[1]
        inner = gradient - (self.shift.gradient[:, None, None] + self.normal * self.scale.gradient[:, None, None]) / count
        return inner * self.scale.value[:, None, None] / self.deviation

    def write(self, graph: GraphWriter, x: str) -> str:
        arrays = {"weight": self.scale.value, "bias": self.shift.value, "running_mean": self.mean, "running_var": self.variance}
        return graph.node(
            "BatchNormalization", [x, *(graph.weight(*item) for item in arrays.items())], epsilon=1e-5, momentum=0.9
        )


class Relu(Layer):
    """max(x, 0)."""

    def forward(self, x: Array, training: bool) -> Array:
        self.positive = x > 0
        return x * self.positive

    def backward(self, gradient: Array) -> Array:
        return gradient * self.positive

    def write(self, graph: GraphWriter, x: str) -> str:
        return graph.node("Relu", [x])


class MaxPool2(Layer):
    """The maximum of each 2x2 block."""

    def forward(self, x: Array, training: bool) -> Array:
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 2, 2, w // 2, 2)
        out = blocks.max((3, 5), keepdims=True)
        self.winners = (blocks == out) / (blocks == out).sum((3, 5), keepdims=True)
        return out[:, :, :, 0, :, 0]

    def backward(self, gradient: Array) -> Array:
        n, c, h, w = gradient.shape
        return (self.winners * gradient[:, :, :, None, :, None]).reshape(n, c, 2 * h, 2 * w).astype(np.float32)

    def write(self, graph: GraphWriter, x: str) -> str:
        return graph.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])


class Flatten(Layer):
    """[n, c, h, w] to [n, c*h*w]."""

    def forward(self, x: Array, training: bool) -> Array:
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, gradient: Array) -> Array:
        return gradient.reshape(self.shape)

    def write(self, graph: GraphWriter, x: str) -> str:
        return graph.node("Flatten", [x], axis=1)


class Linear(Layer):
    """x W^T + b."""

    def __init__(self, rng: np.random.Generator, width: int, out: int) -> None:
        self.weight, self.bias = Parameter(rng.normal(0, np.sqrt(2 / width), (out, width))), Parameter(np.zeros(out))
        self.parameters = (self.weight, self.bias)

    def forward(self, x: Array, training: bool) -> Array:
        self.x = x
        return x @ self.weight.value.T + self.bias.value

    def backward(self, gradient: Array) -> Array:
        self.weight.gradient, self.bias.gradient = gradient.T @ self.x, gradient.sum(0)
        return gradient @ self.weight.value

    def write(self, graph: GraphWriter, x: str) -> str:
        weight, bias = graph.weight("weight", self.weight.value), graph.weight("bias", self.bias.value)
        return graph.node("Gemm", [x, weight, bias], alpha=1.0, beta=1.0, transB=1)


def network(rng: np.random.Generator) -> dict[str, Layer]:
    """Two blocks of conv, norm, ReLU and pool, then two linear layers: 13 754 parameters. By name, in order."""
    return {
        "conv1": Conv3x3(rng, 1, 16),
        "bn1": BatchNorm(16),
        "relu1": Relu(),
        "pool1": MaxPool2(),
        "conv2": Conv3x3(rng, 16, 32),
        "bn2": BatchNorm(32),
        "relu2": Relu(),
        "pool2": MaxPool2(),
        "flatten": Flatten(),
        "fc1": Linear(rng, 128, 64),
        "relu3": Relu(),
        "fc2": Linear(rng, 64, 10),
    }


def forward(layers: dict[str, Layer], x: Array, training: bool = False) -> Array:
    """Logits [n, 10] of images [n, 1, 8, 8]."""
    for layer in layers.values():
        x = layer.forward(x, training)
    return x


def shifted(rng: np.random.Generator, images: Array) -> Array:
    """Each image moved by -1, 0 or 1 pixel in both directions, for training only."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    rows, columns = rng.choice(3, (2, len(images)), p=[0.2, 0.6, 0.2])
    return np.stack([padded[n, :, r : r + 8, c : c + 8] for n, (r, c) in enumerate(zip(rows, columns, strict=True))])


def train(rng: np.random.Generator, images: Array, labels: Array) -> dict[str, Layer]:
    """Cross-entropy by Adam, the rate falling to zero along a cosine."""
    layers = network(rng)
    parameters = [parameter for layer in layers.values() for parameter in layer.parameters]
    steps = EPOCHS * -(-len(images) // BATCH)
    for count, rows in enumerate(batches(rng, len(images)), 1):
        logits = forward(layers, shifted(rng, images[rows]), training=True)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        gradient = chances
        gradient[np.arange(len(rows)), labels[rows]] -= 1
        gradient /= len(rows)
        for layer in reversed(layers.values()):
            gradient = layer.backward(gradient)
        for parameter in parameters:
            parameter.step(0.003 * 0.5 * (1 + np.cos(np.pi * count / steps)), count)
    return layers


def batches(rng: np.random.Generator, count: int) -> Iterator[Array]:
    """Row numbers of each batch of each epoch, in a new order every time."""
    for _ in range(EPOCHS):
        order = rng.permutation(count)
        yield from (order[start : start + BATCH] for start in range(0, count, BATCH))


def write_model(layers: dict[str, Layer], path: Path) -> None:
    """The network as ONNX: input ``image`` f32[batch,1,8,8] in [0, 1], output ``logits`` f32[batch,10]."""
    graph = GraphWriter("digits", opset=21)
    x = graph.input("image", "float32", ["batch", 1, 8, 8])
    for name, layer in layers.items():
        with graph.scope(name):
            x = layer.write(graph, x)
    graph.output("logits", x, "float32", ["batch", 10])
    onnx.save(graph.model(), path)


def main() -> None:
    """Train, write both files, print the accuracy on the held-out images."""
    rng = np.random.default_rng(SEED)
    data = load_digits()
    images, labels = (data.images[:, None] / 16).astype(np.float32), data.target.astype(np.int64)
    order = rng.permutation(len(images))
    seen, held_out = order[:-HELD_OUT], order[-HELD_OUT:]
    layers = train(rng, images[seen], labels[seen])
    write_model(layers, FOLDER / "digits.onnx")
    np.savez_compressed(FOLDER / "digits_test.npz", image=images[held_out], label=labels[held_out])
    accuracy = np.mean(forward(layers, images[held_out]).argmax(1) == labels[held_out])
    print(f"accuracy on {HELD_OUT} held-out images: {accuracy:.2%}")


if __name__ == "__main__":
    main()
