"""Two networks for images that torchvision does not have, in plain PyTorch: a U-Net, and a detector of the YOLO kind.

Both are as published but for names: the U-Net of Ronneberger et al. (2015) with padded convolutions and batch normalization; a
detector with cross-stage blocks, a pyramid that is gone through up and down, and heads without anchors, whose distances are
means of distributions, with what follows them as part of the graph: boxes in pixels, scores, and the best of them, with no
suppression of overlaps (NMS).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

UNET_SIZE = 512
DETECTOR_SIZE = 640
_BINS = 16
"""Numbers that a distance is a mean of."""


def convolution(inputs: int, outputs: int, size: int = 1, stride: int = 1, act: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """A convolution that keeps the image's size, or divides it by ``stride``; normalized and activated."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act(inplace=True))


class UNet(nn.Module):
    """f[N,3,H,W], H and W multiples of 16 -> f[N,2,H,W]: two classes for each pixel."""

    def __init__(self, width: int = 64, classes: int = 2) -> None:
        super().__init__()
        widths = [width << level for level in range(5)]
        self.down = nn.ModuleList(self._level(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in reversed(widths[:-1]))
        self.merge = nn.ModuleList(self._level(2 * w, w) for w in reversed(widths[:-1]))
        self.last = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _level(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(convolution(inputs, outputs, 3, act=nn.ReLU), convolution(outputs, outputs, 3, act=nn.ReLU))

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for number, level in enumerate(self.down):
            x = level(functional.max_pool2d(x, 2) if number else x)
            kept.append(x)
        for up, merge, beside in zip(self.up, self.merge, reversed(kept[:-1]), strict=True):
            x = merge(torch.cat([beside, up(x)], 1))
        return self.last(x)


class Bottleneck(nn.Module):
    """Two convolutions of 3x3, with the input added where ``shortcut`` says so."""

    def __init__(self, width: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(convolution(width, width, 3), convolution(width, width, 3))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class CrossStage(nn.Module):
    """Half of the channels go through ``depth`` bottlenecks, one behind the other; all that they give is merged."""

    def __init__(self, inputs: int, outputs: int, depth: int, shortcut: bool = False) -> None:
        super().__init__()
        self.half = outputs // 2
        self.first = convolution(inputs, outputs)
        self.middle = nn.ModuleList(Bottleneck(self.half, shortcut) for _ in range(depth))
        self.last = convolution((2 + depth) * self.half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.middle:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class PooledPyramid(nn.Module):
    """Maxima of windows of 5, 9 and 13 pixels beside the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.last = convolution(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detector(nn.Module):
    """f[N,3,S,S], S a multiple of 32 -> f[N,4+classes,P] and f[N,most,6], for an image of P = S S (1/64 + 1/256 + 1/1024) places.

    The first has for each place a box (x, y, width, height in pixels) and the classes' scores; the second the ``most`` places
    of the best scores: their boxes, score and class.
    """

    def __init__(self, width: int = 16, classes: int = 80, size: int = DETECTOR_SIZE, most: int = 300) -> None:
        super().__init__()
        w, self.most = width, most
        self.stem = nn.Sequential(convolution(3, w, 3, 2), convolution(w, 2 * w, 3, 2), CrossStage(2 * w, 2 * w, 1, True))
        self.eighth = nn.Sequential(convolution(2 * w, 4 * w, 3, 2), CrossStage(4 * w, 4 * w, 2, True))
        self.sixteenth = nn.Sequential(convolution(4 * w, 8 * w, 3, 2), CrossStage(8 * w, 8 * w, 2, True))
        self.last = nn.Sequential(convolution(8 * w, 16 * w, 3, 2), CrossStage(16 * w, 16 * w, 1, True), PooledPyramid(16 * w))
        self.up_16 = CrossStage(24 * w, 8 * w, 1)
        self.up_8 = CrossStage(12 * w, 4 * w, 1)
        self.from_8, self.down_16 = convolution(4 * w, 4 * w, 3, 2), CrossStage(12 * w, 8 * w, 1)
        self.from_16, self.down_32 = convolution(8 * w, 8 * w, 3, 2), CrossStage(24 * w, 16 * w, 1)
        widths = (4 * w, 8 * w, 16 * w)
        self.boxes = nn.ModuleList(self._head(n, max(w, 4 * _BINS), 4 * _BINS) for n in widths)
        self.scores = nn.ModuleList(self._head(n, max(4 * w, classes), classes) for n in widths)
        self.bins = nn.Conv2d(_BINS, 1, 1, bias=False)
        self.bins.weight.data = torch.arange(_BINS, dtype=torch.float32).view(1, _BINS, 1, 1)
        places, steps = zip(*(self._places(size // step, step) for step in (8, 16, 32)), strict=True)
        self.register_buffer("places", torch.cat(places, 1))
        self.register_buffer("steps", torch.cat(steps, 1))

    @staticmethod
    def _head(inputs: int, width: int, outputs: int) -> nn.Sequential:
        layers = (convolution(inputs, width, 3), convolution(width, width, 3), nn.Conv2d(width, outputs, 1))
        return nn.Sequential(*layers)

    @staticmethod
    def _places(size: int, step: int) -> tuple[Tensor, Tensor]:
        """The middles of a level's places, in steps, as f32[2,places], and the step in pixels, as f32[1,places]."""
        at = torch.arange(size, dtype=torch.float32) + 0.5
        y, x = torch.meshgrid(at, at, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()]), torch.full((1, size * size), float(step))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        eighth = self.eighth(self.stem(x))
        sixteenth = self.sixteenth(eighth)
        last = self.last(sixteenth)
        sixteenth = self.up_16(torch.cat([functional.interpolate(last, scale_factor=2.0), sixteenth], 1))
        eighth = self.up_8(torch.cat([functional.interpolate(sixteenth, scale_factor=2.0), eighth], 1))
        sixteenth = self.down_16(torch.cat([self.from_8(eighth), sixteenth], 1))
        last = self.down_32(torch.cat([self.from_16(sixteenth), last], 1))
        levels = (eighth, sixteenth, last)
        heads = zip(levels, self.boxes, self.scores, strict=True)
        each = [torch.cat([boxes(level), scores(level)], 1).flatten(2) for level, boxes, scores in heads]
        return self._detections(torch.cat(each, 2))

    def _detections(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f[N,64+classes,P] of all levels -> boxes and scores of all places, and the best of them."""
        distances, scores = x.split([4 * _BINS, x.shape[1] - 4 * _BINS], 1)
        sides = distances.view(x.shape[0], 4, _BINS, -1).transpose(1, 2).softmax(1)
        before, after = self.bins(sides).flatten(1, 2).chunk(2, 1)
        first, last = self.places - before, self.places + after
        boxes = torch.cat([(first + last) / 2, last - first], 1) * self.steps
        scores = scores.sigmoid()
        best, classes = scores.max(1)
        chosen, at = best.topk(self.most, 1)
        picked = boxes.transpose(1, 2).gather(1, at.unsqueeze(2).expand(-1, -1, 4))
        kinds = classes.gather(1, at).to(x.dtype)
        return torch.cat([boxes, scores], 1), torch.cat([picked, chosen.unsqueeze(2), kinds.unsqueeze(2)], 2)
