"""What PyTorch's exporters take apart is whole again: every layer, and attention in its simplest form."""

from collections import Counter

import pytest

from miniinfer_cli.ir import Graph, Node
from miniinfer_cli.onnx_import import import_model
from miniinfer_cli.passes.pipeline import optimize
from tests.fixtures import Fixture, fixtures

RECOGNISED = {
    "Attention", "LayerNormalization", "RMSNormalization", "GroupNormalization", "Gelu", "Swish", "HardSwish", "Mish",
    "RotaryEmbedding",
}  # fmt: skip
# Pieces of those, and of the masks and indices around them.
PIECES = {
    "Softmax", "IsNaN", "Erf", "Sqrt", "Pow", "ReduceMean", "InstanceNormalization", "Sigmoid", "Softplus", "Neg", "GatherND",
    "CumSum", "Trilu", "Tile",
}  # fmt: skip
PADDED = "padded"  # a boolean mask [batch, 1, 1, keys]
ADDED = "added"  # the same, added: zeros, and a number so low that a query without keys weighs all alike
MATRIX, ADDED_MATRIX = "matrix", "added matrix"  # [batch, 1, queries, keys]
# How each attention should read its mask, by case, and where it differs by exporter: "script", "dynamo", "dynamo 23".
MASKS: dict[str, str | dict[str, str]] = {
    "attention_by_hand": "",
    "attention_by_hand_additive": ADDED,
    "attention_by_hand_where": ADDED,  # filled with the lowest f32
    "attention_by_hand_cross": "",
    "attention_grouped": "",
    "attention_packed": "",
    "bert_eager": ADDED,
    "bert_sdpa": {"script": PADDED, "dynamo": ADDED, "dynamo 23": PADDED},
    "decoder_cross": "causal, none",
    "decoder_tril": "causal",
    "encoder_post": "",
    "encoder_pre": "",
    "gpt2_eager": "causal",
    "gpt2_masked_eager": ADDED_MATRIX,
    "gpt2_masked_sdpa": {"script": f"causal {PADDED}", "dynamo": ADDED_MATRIX},
    "gpt2_sdpa": "causal",
    "llama_eager": "causal",
    "llama_masked_eager": ADDED_MATRIX,
    "llama_masked_sdpa": {"script": f"causal {PADDED}", "dynamo": ADDED_MATRIX},
    "llama_positions": {"script": f"causal {PADDED}", "dynamo": ADDED_MATRIX, "dynamo 23": f"causal {PADDED}"},
    "llama_sdpa": "causal",
    "mha_causal": "causal",
    "mha_cross": "",
    "mha_padding": PADDED,
    "mha_self": "",
    "mha_weights": "",
    "sdpa_additive_mask": ADDED,
    "sdpa_additive_matrix": ADDED_MATRIX,
    "sdpa_bool_mask": {"script": PADDED, "dynamo": ADDED},
    "sdpa_bool_matrix": {"script": MATRIX, "dynamo": ADDED_MATRIX, "dynamo 23": MATRIX},
    "sdpa_causal": "causal",
    "sdpa_causal_cross": "causal",
    "sdpa_cross": "",
    "sdpa_grouped": "",
    "sdpa_plain": "",
    "sdpa_scale": "",
    "unet_diffusion": "",
    "vit_eager": "",
    "vit_sdpa": "",  # the mask of the exporter hides nothing
}


def optimized(entry: Fixture) -> Graph:
    graph = import_model(entry.path)
    optimize(graph, check=True)
    return graph


def operations(graph: Graph) -> Counter[str]:
    """Operations by name, those inside regions too; a channels-last form counts as ONNX's own."""
    return Counter(inner.op.removesuffix("NHWC") for node in graph for inner in ([node] if node.body is None else node.body))


def mask_of(node: Node) -> str:
    """One attention's mask in the words of MASKS."""
    words = ["causal"] if node.attrs.get("is_causal") else []
    if len(node.inputs) > 3:
        mask = node.inputs[3].tensor
        whole = "matrix" if mask.shape[2] != 1 else ""
        kind = (whole or PADDED) if mask.dtype == "bool" else f"{ADDED} {whole}".strip()
        words.append(kind)
    return " ".join(words) or "none"


@pytest.mark.parametrize("entry", fixtures(), ids=lambda entry: entry.name)
def test_every_layer_is_whole_again_and_attention_in_its_simplest_form(entry):
    graph = optimized(entry)
    assert_layers_are_whole(entry, graph)
    if entry.case in MASKS:
        assert_attention_reads_rows_and_the_simplest_mask(entry, graph)


def assert_layers_are_whole(entry: Fixture, graph: Graph) -> None:
    found = operations(graph)
    expected = {op: count for op, count in entry.contains.items() if op in RECOGNISED}
    assert {op: found[op] for op in RECOGNISED if found[op]} == expected
    if expected and entry.case != "activations_conv":
        assert {op for op in PIECES if found[op]} == set()


def assert_attention_reads_rows_and_the_simplest_mask(entry: Fixture, graph: Graph) -> None:
    nodes = [node for node in graph if node.is_op("Attention")]
    assert [node.inputs[0].tensor.rank for node in nodes] == [3] * len(nodes)
    wanted = MASKS[entry.case]
    if not isinstance(wanted, str):
        wanted = wanted["dynamo 23" if "op23" in entry.name else entry.exporter]
    masks = [mask_of(node) for node in nodes]
    assert ", ".join(dict.fromkeys(masks)) == (wanted or "none")
    # Nothing stands between a projection and attention, save where layers share a memory whose length comes first.
    makers = {v.producer.op for node in nodes for v in node.inputs[:3] if v.producer is not None}
    between = {"Transpose"} if entry.case == "decoder_cross" else set()
    assert makers <= {"Split", "Slice", "FusedMatMul", "MatMul", "RotaryEmbedding", "Reshape"} | between


def test_every_export_with_attention_is_in_the_table():
    assert {entry.case for entry in fixtures() if "Attention" in entry.contains} == set(MASKS)
