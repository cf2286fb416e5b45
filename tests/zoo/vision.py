"""torchvision's and timm's networks with random weights: classification, segmentation, video, optical flow, detection."""

from typing import Any

from tests.zoo.entry import Entry

_CLASSIFICATION = (
    "alexnet vgg11_bn googlenet inception_v3 densenet121 squeezenet1_1 shufflenet_v2_x1_0 mnasnet0_5 mobilenet_v2 "
    "mobilenet_v3_small regnet_x_400mf regnet_y_400mf efficientnet_b0 efficientnet_v2_s resnet18 resnext50_32x4d "
    "wide_resnet50_2 convnext_tiny swin_t swin_v2_t vit_b_16 maxvit_t"
)
_SIZES = {"alexnet": 224, "vgg11_bn": 224, "inception_v3": 128, "vit_b_16": 224, "maxvit_t": 224}  # 64 elsewhere
_SEGMENTATION = "fcn_resnet50 deeplabv3_mobilenet_v3_large lraspp_mobilenet_v3_large"
_VIDEO = "r3d_18 mc3_18 r2plus1d_18 s3d"
_DETECTION = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": 200,
    "retinanet_resnet50_fpn": 160,
    "fcos_resnet50_fpn": 160,
    "ssd300_vgg16": 300,
    "maskrcnn_resnet50_fpn": 160,
    "keypointrcnn_resnet50_fpn": 160,
}
_TIMM = (
    "mixer_b16_224 xcit_nano_12_p8_224 efficientformer_l1 repvgg_a0 ghostnet_100 coat_tiny crossvit_tiny_240 pvt_v2_b0 "
    "edgenext_xx_small mobilevitv2_050 nfnet_l0 resnest14d eca_botnext26ts_256 eva02_tiny_patch14_224 volo_d1_224 "
    "hrnet_w18_small dla34 cspresnet50 tf_mixnet_s fastvit_t8 mobileone_s0 inception_next_tiny focalnet_tiny_srf gcvit_xxtiny "
    "davit_tiny maxxvit_rmlp_nano_rw_256 caformer_s18 levit_128s halonet26t lambda_resnet26t convit_tiny tnt_s_patch16_224 "
    "twins_svt_small visformer_tiny rexnet_100 res2net50_26w_4s selecsls42b vovnet39a tresnet_m hiera_tiny_224 hgnet_tiny "
    "repghostnet_050 starnet_s1 swinv2_cr_tiny_224 vit_tiny_r_s16_p8_224 resmlp_12_224 gmlp_s16_224 poolformerv2_s12 "
    "nextvit_small"
)


def entries() -> dict[str, Entry]:
    """The networks by name."""
    found = {f"torchvision/{name}": Entry(_Classifier(name)) for name in _CLASSIFICATION.split()}
    found |= {f"torchvision/{name}": Entry(_Segmenter(name)) for name in _SEGMENTATION.split()}
    found |= {f"torchvision/{name}": Entry(_Video(name)) for name in _VIDEO.split()}
    found |= {f"torchvision/{name}": Entry(_Detector(name), ranked=True) for name in _DETECTION}
    found["torchvision/raft_small"] = Entry(_optical_flow)
    return found | {f"timm/{name}": Entry(_Timm(name)) for name in _TIMM.split()}


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


class _Classifier(_Named):
    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import torch
        import torchvision

        size = _SIZES.get(self.name, 64)
        more = {"init_weights": False} if self.name in ("googlenet", "inception_v3") else {}
        model = getattr(torchvision.models, self.name)(weights=None, **more)
        return model.eval(), {"x": torch.randn(2, 3, size, size)}


class _Segmenter(_Named):
    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import torch
        import torchvision

        model = getattr(torchvision.models.segmentation, self.name)(weights=None, weights_backbone=None)
        return model.eval(), {"x": torch.randn(2, 3, 96, 96)}


class _Video(_Named):
    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import torch
        import torchvision

        frames, size = (16, 224) if self.name == "s3d" else (8, 64)
        model = getattr(torchvision.models.video, self.name)(weights=None)
        return model.eval(), {"x": torch.randn(1, 3, frames, size, size)}


class _Detector(_Named):
    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import torch
        import torchvision

        model = getattr(torchvision.models.detection, self.name)(weights=None, weights_backbone=None, num_classes=4)

        class Scores(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, image: Any) -> list[Any]:
                found = self.model([image])[0]
                return [found.pop("scores"), *found.values()]

        return Scores().eval(), {"image": torch.rand(3, _DETECTION[self.name], _DETECTION[self.name])}


class _Timm(_Named):
    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import timm
        import torch

        model = timm.create_model(self.name, pretrained=False)
        return model.eval(), {"x": torch.randn(2, *model.default_cfg["input_size"])}


def _optical_flow() -> tuple[Any, dict[str, Any]]:
    import torch
    import torchvision

    model = torchvision.models.optical_flow.raft_small(weights=None)

    class Flow(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, first: Any, second: Any) -> Any:
            return self.model(first, second, num_flow_updates=3)[-1]

    return Flow().eval(), {"first": torch.randn(1, 3, 128, 128), "second": torch.randn(1, 3, 128, 128)}
