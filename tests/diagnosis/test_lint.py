"""inspect --lint: every rule on a graph that shows what it is about, and on one that nearly does."""

import pytest

from miniinfer_cli.diagnosis.heavy import heavy_nodes
from miniinfer_cli.diagnosis.lint import HostStep, Subject, lint
from miniinfer_cli.ops import infer_graph
from miniinfer_cli.passes.pipeline import optimize
from miniinfer_cli.wording import as_flags
from tests.graph_text import typed_graph


def remarks_on(text: str, *, passes: bool = True, **known):
    """The remarks on the graph of a text, after all passes, by rule."""
    graph = typed_graph(text)
    if passes:
        optimize(graph)
    types = infer_graph(graph, [v.type for v in graph.inputs])
    return {r.rule: r for r in reversed(lint(Subject(graph, types, **known)))}


def figures(remark) -> dict[str, float]:
    return {f.what: f.value for f in remark.evidence}


PLAIN = """graph main(x: f16[64,256]) {
  w: f16[256,256] = const large "mapped a@0"
  y = MatMul(x, w)
  z = Relu(y)
  return z
}"""


def test_a_graph_of_which_there_is_nothing_to_say():
    assert remarks_on(PLAIN) == {}


def test_a_build_without_all_passes():
    low = remarks_on(PLAIN, passes=False, opt_level=1)["passes"]
    assert low.text.startswith("built at optimization level 1")
    assert figures(low) == {"optimization level": 1, "nodes": 2}
    disabled = remarks_on(PLAIN, passes=False, disabled=("fuse_matmul", "fold_constants"))["passes"]
    assert disabled.text == "built without fold_constants, fuse_matmul"
    assert "--disable-pass" in as_flags(disabled.advice.how)


def test_host_steps_are_counted_by_operation():
    steps = [
        HostStep("a", "Unique", "no lowering", 40),
        HostStep("b", "Unique", "no lowering", None),
        HostStep("c", "Det", "x", 8),
    ]
    found = [r for r in lint(Subject(typed_graph(PLAIN), {}, host_steps=steps)) if r.rule == "host step"]
    assert [(r.nodes, figures(r)) for r in found] == [
        (("a", "b"), {"steps": 2, "copied an inference": 40}),
        (("c",), {"steps": 1, "copied an inference": 8}),
    ]
    assert all(r.on == "gpu" for r in found)


@pytest.mark.parametrize(
    ("rest", "blocker", "why"),
    [
        ("z = Relu(y)\n return z, y", "y", "y is an output of the model"),
        ("z = Relu(y)\n t = Transpose(y) {perm=[1, 0]}\n return z, t", "t", "t is an output of the model"),
        ("z = Relu(y)\n s = Softmax(y)\n t = Softmax(s)\n return z, t", "s", "Softmax 's' reads y, too"),
        ("t = Transpose(y) {perm=[1, 0]}\n b: f16[1,64] = const large \"mapped b@0\"\n z = Add(t, b)\n return z", "t",
         "Transpose 't' stands between them"),
    ],
)  # fmt: skip
def test_what_is_in_the_way_of_a_fusion(rest, blocker, why):
    text = f"""graph main(x: f16[64,256]) {{
      w: f16[256,256] = const large "mapped a@0"
      y = MatMul(x, w)
      {rest}
    }}"""
    remark = remarks_on(text)["fusion blocked"]
    assert remark.text.endswith(why)
    assert blocker in remark.advice.what
    assert remark.advice.names == ((blocker,) if "output" in why else ())
    assert figures(remark) == {"fusions blocked": 1, "moved for it": 2 * 64 * 256 * 2}


def test_a_value_that_comes_back_is_in_nobodys_way():
    """The mean of y scales y: the two cannot be one kernel, whatever the model does."""
    text = """graph main(x: f16[64,256]) {
      w: f16[256,256] = const large "mapped a@0"
      y = MatMul(x, w)
      s = Softmax(y)
      z = Mul(y, s)
      return z
    }"""
    assert "fusion blocked" not in remarks_on(text)


def test_what_is_broadcast_is_another_kernel():
    text = """graph main(x: f16[batch,256], v: f16[batch,64,256]) {
      w: f16[256,256] = const large "mapped a@0"
      y = MatMul(x, w)
      axes: i64[1] = const [1]
      u = Unsqueeze(y, axes)
      z = Mul(v, u)
      return z
    }"""
    assert "fusion blocked" not in remarks_on(text)


def test_open_sizes_in_the_way_of_a_fusion():
    text = """graph main(x: f16[n,256], v: f16[m,256]) {
      w: f16[256,256] = const large "mapped a@0"
      y = MatMul(x, w)
      z = Add(y, v)
      return z
    }"""
    remark = remarks_on(text)["fusion blocked"]
    assert "f16[n,256]" in remark.text
    assert as_flags(remark.advice.how) == "miniinfer build --shapes INPUT:SIZES"


def test_a_region_that_is_full():
    ops = "".join(f"v{i} = Exp({f'v{i - 1}' if i else 'x'})\n" for i in range(70))
    remark = remarks_on(f"graph main(x: f16[64,256]) {{\n{ops} return v69\n}}")["fusion blocked"]
    assert "a region holds 64 operations, they have 70" in remark.text


def test_layout_copies_that_count():
    text = """graph main(x: f16[64,256], z: f16[2,2]) {
      t = Transpose(x) {perm=[1, 0]}
      s = Softmax(t)
      u = Transpose(z) {perm=[1, 0]}
      return s, u
    }"""
    remark = remarks_on(text)["layout copy"]
    assert remark.nodes == ("t",)  # the other is nothing beside it
    assert figures(remark)["moved by them"] == 2 * 64 * 256 * 2


def product(k: int, n: int, dtype: str = "f16", more: str = "") -> str:
    """x, of which something is computed first, times weights of k by n."""
    return f"""graph main(x: {dtype}[64,{k}]) {{
      s = Softmax(x)
      w: {dtype}[{k},{n}] = const large "mapped a@0"
      y = MatMul(s, w)
      z = Softmax(y)
      {more}
      return z
    }}"""


def test_odd_channels_of_products_that_count():
    remark = remarks_on(product(256, 1001))["odd channels"]
    assert "1001 channels, no multiple of 8 (16 bytes of f16)" in remark.text
    assert "1001 to 1008" in remark.advice.what
    assert figures(remark) == {"of all operations": 100, "multiple": 8}
    assert remark.on == "gpu"
    assert "odd channels" not in remarks_on(product(256, 1004, "f32"))  # four f32 are 16 bytes
    assert "odd channels" in remarks_on(product(256, 1001, "f32"))
    assert "odd channels" not in remarks_on(product(256, 1))  # a row alone is no matter of tensor cores


def test_channels_that_the_caller_gives_are_as_they_are():
    text = """graph main(x: f16[64,255]) {
      w: f16[255,256] = const large "mapped a@0"
      y = MatMul(x, w)
      return y
    }"""
    assert remarks_on(text) == {}
    assert "odd channels" in remarks_on(product(255, 256))


def test_padding_waste_of_channels_far_below_their_multiple():
    remark = remarks_on(product(256, 10))["padding waste"]
    assert figures(remark) == {"multiplications on zeros": pytest.approx(100 * 6 / 16), "of all operations": 100}
    assert "odd channels" not in remarks_on(product(256, 10))
    assert "padding waste" not in remarks_on(product(256, 16))


def test_pads_that_are_copies():
    text = """graph main(x: f16[64,256]) {
      s = Softmax(x)
      pads: i64[4] = const [0, 1, 0, 1]
      p = Pad(s, pads) {mode="reflect"}
      z = Softmax(p)
      return z
    }"""
    remark = remarks_on(text)["padding waste"]
    assert remark.nodes == ("p",)
    assert figures(remark)["moved by them"] == 64 * (256 + 258) * 2 + 32


def test_weights_in_f32_and_tf32_off():
    found = remarks_on(product(256, 256, "f32"))
    assert figures(found["f32 weights"]) == {"products in f32": 1, "f32 weights of them": 256 * 256 * 4}
    assert "TF32 off" not in found
    found = remarks_on(product(256, 256, "f32"), tf32=False)
    assert "--no-tf32" in as_flags(found["TF32 off"].advice.how)
    assert "f32 weights" in found
    assert not {"f32 weights", "TF32 off"} & set(remarks_on(product(256, 256), tf32=False))


def test_sizes_that_passes_would_know_what_to_do_with():
    remark = remarks_on(PLAIN.replace("64,256]", "batch,256]"), fixed_nodes=0)["open dimension"]
    assert (remark.nodes, figures(remark)) == (("batch",), {"nodes": 1, "nodes at fixed sizes": 0})
    assert "open dimension" not in remarks_on(PLAIN, fixed_nodes=1)
    assert "open dimension" not in remarks_on(PLAIN, fixed_nodes=None)


def test_sizes_that_data_decide():
    text = """graph main(x: f16[64]) {
      n = NonZero(x)
      c = Cast(n) {to=1}
      z = Exp(c)
      return z
    }"""
    remark = remarks_on(text)["open dimension"]
    assert remark.nodes == ("n",)
    assert figures(remark) == {"nodes behind them": 2}


def test_idle_inputs_and_outputs():
    text = """graph main(x: f16[64,256], idle: f16[8]) {
      c: f16[2] = const [1.0, 2.0]
      z = Softmax(x)
      return z=z, again=z, constant=c, same=x
    }"""
    graph = typed_graph(text)
    found = lint(Subject(graph, infer_graph(graph, [v.type for v in graph.inputs])))
    assert [(r.rule, r.nodes, r.evidence[0].value) for r in found] == [
        ("unused input", ("idle",), 16),
        ("unused output", ("again",), 64 * 256 * 2),
        ("unused output", ("constant",), 4),
        ("unused output", ("same",), 64 * 256 * 2),
    ]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("y = Conv(s, w) {group=1}", (32, 48, 1, 2 * 48 * 6 * 6 * 32 * 9)),
        ("y = Conv(s, w) {group=2}", (32, 24, 2, 2 * 48 * 6 * 6 * 32 * 9)),
        ("y = ConvTranspose(s, w) {strides=[2, 2]}", (48, 32, 1, 2 * 48 * 8 * 8 * 32 * 9)),
    ],
)
def test_the_sizes_of_convolutions(statement, expected):
    channels = 64 if "group=2" in statement else 48 if "Transpose" in statement else 32
    graph = typed_graph(f"""graph main(x: f32[1,{channels},8,8]) {{
      s = Softmax(x)
      w: f32[48,32,3,3] = const large "mapped a@0"
      {statement}
      return y
    }}""")
    (heavy,) = heavy_nodes(graph, infer_graph(graph, [v.type for v in graph.inputs]))
    assert (heavy.channels_in, heavy.channels_out, heavy.groups, heavy.flops) == expected


def test_what_is_quantized_of_an_input_is_given_as_it_is():
    text = """graph main(x: f32[64,3]) {
      s: f32[] = const 0.5
      z: i8[] = const 0
      w: f32[3,256] = const large "mapped a@0"
      q = QuantizeLinear(x, s, z)
      d = DequantizeLinear(q, s, z)
      y = MatMul(d, w)
      return y
    }"""
    graph = typed_graph(text)
    (heavy,) = heavy_nodes(graph, infer_graph(graph, [v.type for v in graph.inputs]))
    assert heavy.given
