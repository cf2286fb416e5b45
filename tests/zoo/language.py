"""transformers' networks, small and with random weights: text, vision, speech; and PyTorch's own recurrent layers."""

from typing import Any

from tests.zoo.entry import Entry

_VOCABULARY = 101
_LENGTH = 16
_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": _VOCABULARY,
}
_DECODER = _ENCODER | {"num_key_value_heads": 2, "use_cache": False, "max_position_embeddings": 64}
_VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_GPT = {
    "hidden_size": 32,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 64,
    "vocab_size": _VOCABULARY,
    "use_cache": False,
}
_TWO_SIDED = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": _VOCABULARY,
    "use_cache": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}

# Name: class of the configuration, class of the model, the configuration, and the inputs by kind.
_MODELS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "bert": ("BertConfig", "BertForSequenceClassification", _ENCODER, "masked text"),
    "roberta": ("RobertaConfig", "RobertaModel", _ENCODER | {"max_position_embeddings": 64}, "masked text"),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertModel",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": _VOCABULARY},
        "masked text",
    ),
    "albert": ("AlbertConfig", "AlbertModel", _ENCODER | {"embedding_size": 16}, "masked text"),
    "electra": ("ElectraConfig", "ElectraModel", _ENCODER | {"embedding_size": 16}, "masked text"),
    "deberta_v2": (
        "DebertaV2Config",
        "DebertaV2Model",
        _ENCODER | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8},
        "masked text",
    ),
    "mpnet": ("MPNetConfig", "MPNetModel", _ENCODER, "masked text"),
    "xlnet": ("XLNetConfig", "XLNetModel", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "vocab_size": 101}, "text"),
    "gpt2": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": _VOCABULARY, "n_positions": 64, "use_cache": False},
        "text",
    ),
    "gpt_neo": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        _GPT | {"attention_types": [[["global", "local"], 1]], "window_size": 4, "max_position_embeddings": 64},
        "text",
    ),
    "gpt_neox": ("GPTNeoXConfig", "GPTNeoXForCausalLM", _ENCODER | {"use_cache": False}, "text"),
    "opt": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 64,
            "vocab_size": _VOCABULARY,
            "max_position_embeddings": 64,
            "word_embed_proj_dim": 32,
            "use_cache": False,
        },
        "masked text",
    ),
    "bloom": (
        "BloomConfig",
        "BloomForCausalLM",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": _VOCABULARY, "use_cache": False},
        "masked text",
    ),
    "llama": ("LlamaConfig", "LlamaForCausalLM", _DECODER, "masked text"),
    "mistral": ("MistralConfig", "MistralForCausalLM", _DECODER, "masked text"),
    "mixtral": ("MixtralConfig", "MixtralForCausalLM", _DECODER | {"num_local_experts": 4, "num_experts_per_tok": 2}, "text"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM", _DECODER, "masked text"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _DECODER | {"head_dim": 8}, "masked text"),
    "gemma": ("GemmaConfig", "GemmaForCausalLM", _DECODER | {"head_dim": 8}, "masked text"),
    "gemma2": ("Gemma2Config", "Gemma2ForCausalLM", _DECODER | {"head_dim": 8}, "masked text"),
    "phi": ("PhiConfig", "PhiForCausalLM", _DECODER | {"num_key_value_heads": 4}, "masked text"),
    "phi3": (
        "Phi3Config",
        "Phi3ForCausalLM",
        _DECODER | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1},
        "masked text",
    ),
    "olmo": ("OlmoConfig", "OlmoForCausalLM", _DECODER, "masked text"),
    "stablelm": ("StableLmConfig", "StableLmForCausalLM", _DECODER, "masked text"),
    "starcoder2": ("Starcoder2Config", "Starcoder2ForCausalLM", _DECODER, "masked text"),
    "falcon": (
        "FalconConfig",
        "FalconForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": _VOCABULARY, "use_cache": False},
        "text",
    ),
    "mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "vocab_size": _VOCABULARY, "use_cache": False},
        "text",
    ),
    "rwkv": (
        "RwkvConfig",
        "RwkvForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": _VOCABULARY, "use_cache": False},
        "text",
    ),
    "t5": (
        "T5Config",
        "T5Model",
        {"d_model": 32, "num_layers": 2, "num_heads": 4, "d_kv": 8, "d_ff": 64, "vocab_size": _VOCABULARY, "use_cache": False},
        "two texts",
    ),
    "bart": ("BartConfig", "BartModel", _TWO_SIDED | {"max_position_embeddings": 64}, "two texts"),
    "marian": ("MarianConfig", "MarianModel", _TWO_SIDED | {"max_position_embeddings": 64}, "two texts"),
    "whisper": (
        "WhisperConfig",
        "WhisperModel",
        _TWO_SIDED | {"max_source_positions": 50, "max_target_positions": 32, "num_mel_bins": 16},
        "spectrum and text",
    ),
    "wav2vec2": (
        "Wav2Vec2Config",
        "Wav2Vec2Model",
        {k: v for k, v in _ENCODER.items() if k != "vocab_size"}
        | {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4},
        "sound",
    ),
    "clip": (
        "CLIPConfig",
        "CLIPModel",
        {
            "text_config": _ENCODER | {"max_position_embeddings": 32, "eos_token_id": _VOCABULARY - 1},
            "vision_config": _VISION,
            "projection_dim": 16,
        },
        "text and image",
    ),
    "vit": ("ViTConfig", "ViTModel", _VISION, "image of 32"),
    "deit": ("DeiTConfig", "DeiTModel", _VISION, "image of 32"),
    "beit": ("BeitConfig", "BeitModel", _VISION, "image of 32"),
    "dinov2": (
        "Dinov2Config",
        "Dinov2Model",
        {k: v for k, v in _VISION.items() if k != "intermediate_size"},
        "image of 32",
    ),
    "swin": (
        "SwinConfig",
        "SwinModel",
        {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "image_size": 32, "patch_size": 4},
        "image of 32",
    ),
    "dpt": (
        "DPTConfig",
        "DPTForDepthEstimation",
        _VISION
        | {
            "num_hidden_layers": 4,
            "backbone_out_indices": [0, 1, 2, 3],
            "neck_hidden_sizes": [8, 8, 16, 16],
            "fusion_hidden_size": 16,
        },
        "image of 32",
    ),
    "segformer": (
        "SegformerConfig",
        "SegformerForSemanticSegmentation",
        {
            "hidden_sizes": [16, 16, 32, 32],
            "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 32,
        },
        "image of 64",
    ),
    "convnextv2": (
        "ConvNextV2Config",
        "ConvNextV2Model",
        {"hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]},
        "image of 64",
    ),
    "mobilevit": (
        "MobileViTConfig",
        "MobileViTModel",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 64]},
        "image of 64",
    ),
    "poolformer": (
        "PoolFormerConfig",
        "PoolFormerModel",
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
        "image of 64",
    ),
    "levit": (
        "LevitConfig",
        "LevitModel",
        {
            "image_size": 64,
            "hidden_sizes": [32, 48, 64],
            "num_attention_heads": [2, 3, 4],
            "depths": [1, 1, 1],
            "key_dim": [8, 8, 8],
        },
        "image of 64",
    ),
    "rt_detr_resnet": (
        "RTDetrResNetConfig",
        "RTDetrResNetBackbone",
        {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 1, 1], "layer_type": "basic"},
        "image of 64",
    ),
    "timesformer": ("TimesformerConfig", "TimesformerModel", _VISION | {"num_frames": 2}, "two frames"),
}


def entries() -> dict[str, Entry]:
    """The networks by name."""
    found = {f"transformers/{name}": Entry(_Transformer(name)) for name in _MODELS}
    found |= {
        f"torch/{kind.lower()}{'_both_ways' if both else ''}": Entry(_Recurrent(kind, both))
        for kind in ("LSTM", "GRU", "RNN")
        for both in (False, True)
    }
    return found | {"torch/transformer": Entry(_transformer_layers)}


class _Transformer:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import torch
        import transformers

        config, cls, values, inputs = _MODELS[self.name]
        feeds = _feeds(inputs)
        model = getattr(transformers, cls)(getattr(transformers, config)(**values))

        class First(torch.nn.Module):
            """The network with its inputs in order, and the first of its outputs."""

            def __init__(self) -> None:
                super().__init__()
                self.model = model

            def forward(self, *given: Any) -> Any:
                output = self.model(**dict(zip(feeds, given, strict=True)))
                return output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]

        return First().eval(), feeds


def _feeds(kind: str) -> dict[str, Any]:
    import torch

    def tokens(length: int) -> Any:
        return torch.randint(3, _VOCABULARY - 1, (2, length))

    match kind:
        case "text":
            return {"input_ids": tokens(_LENGTH)}
        case "masked text":
            mask = torch.ones(2, _LENGTH, dtype=torch.int64)
            mask[1, 11:] = 0
            return {"input_ids": tokens(_LENGTH), "attention_mask": mask}
        case "two texts":
            return {"input_ids": tokens(_LENGTH), "decoder_input_ids": tokens(7)}
        case "spectrum and text":
            return {"input_features": torch.randn(2, 16, 100), "decoder_input_ids": tokens(7)}
        case "sound":
            return {"input_values": torch.randn(2, 4000)}
        case "text and image":
            ids = tokens(_LENGTH)
            ids[:, -1] = _VOCABULARY - 1  # the end, which the text is pooled at
            return {"input_ids": ids, "pixel_values": torch.randn(2, 3, 32, 32)}
        case "two frames":
            return {"pixel_values": torch.randn(1, 2, 3, 32, 32)}
    size = int(kind.removeprefix("image of "))
    return {"pixel_values": torch.randn(2, 3, size, size)}


class _Recurrent:
    def __init__(self, kind: str, both_ways: bool) -> None:
        self.kind = kind
        self.both_ways = both_ways

    def __call__(self) -> tuple[Any, dict[str, Any]]:
        import torch

        kind, both_ways = self.kind, self.both_ways

        class Network(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layers = getattr(torch.nn, kind)(8, 12, num_layers=2, bidirectional=both_ways, batch_first=True)
                self.last = torch.nn.Linear(24 if both_ways else 12, 5)

            def forward(self, x: Any) -> Any:
                return self.last(self.layers(x)[0])

        return Network().eval(), {"x": torch.randn(2, 9, 8)}


def _transformer_layers() -> tuple[Any, dict[str, Any]]:
    import torch

    model = torch.nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
    return model.eval(), {"source": torch.randn(2, 9, 32), "target": torch.randn(2, 5, 32)}
