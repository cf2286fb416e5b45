"""Small networks of the kinds that torchvision has, of torch alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as f


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, act: Callable[[], nn.Module] | None = nn.ReLU) -> nn.Sequential:
    layers = [nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Head(nn.Sequential):
    def __init__(self, body: nn.Module, features: int) -> None:
        super().__init__(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 10))


class Residual(nn.Module):
    def __init__(self, i: int, o: int, s: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(i, o, s=s), conv(o, o, act=None))
        self.short = conv(i, o, 1, s, act=None) if s > 1 or i != o else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return f.relu(self.body(x) + self.short(x))


class Inverted(nn.Module):
    def __init__(self, i: int, o: int, s: int, act: Callable[[], nn.Module], squeeze: bool) -> None:
        super().__init__()
        wide = i * 4
        self.first, self.deep = conv(i, wide, 1, act=act), conv(wide, wide, s=s, g=wide, act=act)
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, i, 1), act(), nn.Conv2d(i, wide, 1), nn.Sigmoid()
        ) if squeeze else None  # fmt: skip
        self.last = conv(wide, o, 1, act=None)

    def forward(self, x: Tensor) -> Tensor:
        y = self.deep(self.first(x))
        y = self.last(y if self.squeeze is None else y * self.squeeze(y))
        return x + y if y.shape == x.shape else y


class Dense(nn.Module):
    def __init__(self, i: int, grow: int, times: int) -> None:
        super().__init__()
        steps = [
            nn.Sequential(nn.BatchNorm2d(i + n * grow), nn.ReLU(), nn.Conv2d(i + n * grow, grow, 3, 1, 1)) for n in range(times)
        ]
        self.steps = nn.ModuleList(steps)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = torch.cat([x, step(x)], 1)
        return x


class Fire(nn.Module):
    def __init__(self, i: int, s: int, o: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(i, s, 1), nn.Conv2d(s, o, 1), nn.Conv2d(s, o, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = f.relu(self.squeeze(x))
        return torch.cat([f.relu(self.one(x)), f.relu(self.three(x))], 1)


class Inception(nn.Module):
    def __init__(self, i: int) -> None:
        super().__init__()
        self.ways = nn.ModuleList([conv(i, 8, 1), nn.Sequential(conv(i, 4, 1), conv(4, 8)), conv(i, 8, 5)])
        self.pooled = conv(i, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(way(x) for way in self.ways), self.pooled(f.max_pool2d(x, 3, 1, 1))], 1)


class Shuffled(nn.Module):
    def __init__(self, i: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(i // 2, i // 2, 1), conv(i // 2, i // 2, g=i // 2, act=None), conv(i // 2, i // 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        one, two = x.chunk(2, 1)
        y = torch.cat([one, self.body(two)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class ConvNext(nn.Module):
    def __init__(self, i: int) -> None:
        super().__init__()
        self.deep, self.norm = nn.Conv2d(i, i, 7, padding=3, groups=i), nn.LayerNorm(i)
        self.up, self.down, self.scale = nn.Linear(i, 4 * i), nn.Linear(4 * i, i), nn.Parameter(torch.full((i,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.deep(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(f.gelu(self.up(y)))).permute(0, 3, 1, 2)


class Vit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 32, 8, 8), nn.Parameter(torch.zeros(1, 1, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
        self.own = nn.MultiheadAttention(32, 4, batch_first=True)
        self.place, self.body = nn.Parameter(torch.randn(1, 17, 32)), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x).flatten(2).transpose(1, 2)
        y = self.body(torch.cat([self.token.expand(len(x), -1, -1), y], 1) + self.place)
        return self.head(self.own(y, y, y, need_weights=False)[0][:, 0])


class Windows(nn.Module):
    """Attention within windows that are shifted, as Swin has it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.qkv, self.out = nn.Conv2d(3, 32, 4, 4), nn.Linear(32, 96), nn.Linear(32, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.roll(self.patch(x).permute(0, 2, 3, 1), (-2, -2), (1, 2))
        n, h, w, c = y.shape
        y = y.view(n, h // 4, 4, w // 4, 4, c).transpose(2, 3).reshape(-1, 16, c)
        q, k, v = self.qkv(y).view(-1, 16, 3, 4, 8).permute(2, 0, 3, 1, 4)
        y = self.out(f.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 16, c))
        y = y.view(n, h // 4, w // 4, 4, 4, c).transpose(2, 3).reshape(n, h, w, c)
        return self.head(torch.roll(y, (2, 2), (1, 2)).mean((1, 2)))


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.up, self.three = conv(3, 8), conv(8, 16, s=2), nn.ConvTranspose2d(16, 8, 2, 2), conv(16, 8)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a = self.one(x)
        b = self.two(a)
        y = self.last(self.three(torch.cat([a, self.up(b)], 1)))
        return y, f.interpolate(b.mean(1, keepdim=True), scale_factor=2, mode="bilinear", align_corners=False)


class Pyramid(nn.Module):
    """A detector's head: several sizes, boxes out of distances, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 16, s=2), conv(16, 16, s=2)
        self.boxes, self.scores = nn.Conv2d(16, 4, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.one(x)
        levels = [a + f.interpolate(self.two(a), size=a.shape[2:], mode="nearest"), self.two(a)]
        boxes = torch.cat([self.boxes(y).flatten(2) for y in levels], 2).transpose(1, 2).exp()
        scores = torch.cat([self.scores(y).flatten(2) for y in levels], 2).transpose(1, 2).softmax(-1)
        return {"boxes": boxes, "best": scores.max(-1).values, "labels": scores.argmax(-1)}


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "alexnet": lambda: Head(
        nn.Sequential(nn.Conv2d(3, 16, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(16, 24, 3, 1, 1), nn.ReLU()), 24
    ),
    "resnet": lambda: Head(nn.Sequential(conv(3, 8, 7, 2), nn.MaxPool2d(3, 2, 1), Residual(8, 8), Residual(8, 16, 2)), 16),
    "mobilenet": lambda: Head(nn.Sequential(conv(3, 8, s=2), *(Inverted(8, 8, s, nn.ReLU6, False) for s in (1, 2))), 8),
    "efficientnet": lambda: Head(nn.Sequential(conv(3, 8, s=2), *(Inverted(8, 8, s, nn.SiLU, True) for s in (1, 2))), 8),
    "mobilenet_v3": lambda: Head(nn.Sequential(conv(3, 8, s=2), Inverted(8, 8, 1, nn.Hardswish, True)), 8),
    "densenet": lambda: Head(nn.Sequential(conv(3, 8, s=2), Dense(8, 4, 3), nn.AvgPool2d(2), Dense(20, 4, 2)), 28),
    "squeezenet": lambda: Head(
        nn.Sequential(conv(3, 8, s=2), Fire(8, 4, 8), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(16, 4, 8)), 16
    ),
    "inception": lambda: Head(nn.Sequential(conv(3, 8, s=2), Inception(8), Inception(32)), 32),
    "shufflenet": lambda: Head(nn.Sequential(conv(3, 16, s=2), Shuffled(16), Shuffled(16)), 16),
    "convnext": lambda: Head(nn.Sequential(nn.Conv2d(3, 16, 4, 4), ConvNext(16), ConvNext(16)), 16),
    "vit": Vit,
    "swin": Windows,
    "unet": Unet,
    "detector": Pyramid,
}
