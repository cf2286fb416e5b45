"""place_channels: shuffles, halves and joins of channels are in weights, and widths are whole vectors."""

import collections

import numpy as np
import pytest

from miniinfer_cli.ir import DType, constant
from miniinfer_cli.ir.verifier import verify
from miniinfer_cli.passes.place_channels import place_channels, spread

HALVES = "zero: i64[1] = const [0] half: i64[1] = const [HALF] all: i64[1] = const [ALL] axis: i64[1] = const [1]"


def unit(number, half):
    """The text of a unit of ShuffleNet: half of the channels of x0 (x1 ...) pass, half are convolved, all are shuffled."""
    n, after = number, number + 1
    return f"""
      pass{n} = Slice(x{n}, zero, half, axis)
      work{n} = Slice(x{n}, half, all, axis)
      k{n}: f16[{half},{half},1,1] = const large "mapped k{n}"
      b{n}: f16[{half}] = const large "mapped b{n}"
      c{n} = Conv(work{n}, k{n}, b{n})
      r{n} = Relu(c{n})
      d{n}: f16[{half},1,3,3] = const large "mapped d{n}"
      e{n} = Conv(r{n}, d{n}) {{group={half}, pads=[1, 1, 1, 1]}}
      p{n}: f16[{half},{half},1,1] = const large "mapped p{n}"
      q{n} = Conv(e{n}, p{n}, b{n})
      s{n} = Relu(q{n})
      joined{n} = Concat(pass{n}, s{n}) {{axis=1}}
      apart{n}: i64[5] = const [0, 2, {half}, 3, 5]
      cut{n} = Reshape(joined{n}, apart{n})
      turned{n} = Transpose(cut{n}) {{perm=[0, 2, 1, 3, 4]}}
      together{n}: i64[4] = const [0, {2 * half}, 3, 5]
      x{after} = Reshape(turned{n}, together{n})"""


def units(count, half):
    """A graph of so many units behind a convolution, and one that reads the last."""
    body = "".join(unit(i, half) for i in range(count))
    text = f"""graph main(x: f16[batch,8,3,5]) {{
      {HALVES}
      first: f16[ALL,8,1,1] = const large "mapped first"
      x0 = Conv(x, first)
      {body}
      last: f16[8,ALL,1,1] = const large "mapped last"
      y = Conv(x{count}, last)
      return y
    }}"""
    return text.replace("HALF", str(half)).replace("ALL", str(2 * half))


def placed(graph_of, outputs_of, text, rtol=4e-3):
    """The graph behind the pass, which computes the same numbers; a second run finds nothing."""
    graph = graph_of(text)
    for value in list(graph.constants()):  # so that numbers stay within f16, however many convolutions there are
        if value.tensor.dtype is DType.F16 and len(value.tensor.shape) == 4:
            weights = value.constant.array().astype(np.float32)
            graph.set_constant(value, constant((weights / np.sqrt(weights[0].size)).astype(np.float16)))
    before = outputs_of(graph)
    assert place_channels(graph) > 0
    verify(graph)
    for expected, actual in zip(before, outputs_of(graph), strict=True):
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype)
        wide = expected.astype(np.float64)
        np.testing.assert_allclose(actual.astype(np.float64), wide, rtol=rtol, atol=rtol * abs(wide).max())
    assert place_channels(graph) == 0
    return graph


def operations(graph):
    return collections.Counter(n.op for n in graph)


BIAS = "-0.988, -1.145, 0.6606, 0.789, 0.5283, 1.166, -0.2072, 0.6904, 0.4875, 0.3545, -0.3867, 0.4624, 1.565"
FILLED = """graph main(x: f16[batch,8,3,5]) {
          k: f16[13,8,1,1] = const large "mapped k"
          b: f16[13] = const large "mapped b"
          c = Conv(x, k, b) @first
          r = Swish(c)
          d: f16[13,1,3,3] = const large "mapped d"
          e = Conv(r, d) {group=13, pads=[1, 1, 1, 1]} @second
          p: f16[8,13,1,1] = const large "mapped p"
          y = Conv(e, p) @third
          return y
        }"""


def test_what_is_filled_up(rewrites):
    rewrites(
        place_channels,
        FILLED,
        """graph main(x: f16[batch,8,3,5]) {
          k_1: f16[16,8,1,1] = const large "array 05e62302"
          b_1: f16[16] = const BIAS
          c_1 = Conv(x, k_1, b_1) @first
          r_1 = Swish(c_1) @r
          d_1: f16[16,1,3,3] = const large "array 56abdfaf"
          e_1 = Conv(r_1, d_1) {group=16, pads=[1, 1, 1, 1]} @second
          p_1: f16[8,16,1,1] = const large "array ab5ef670"
          y = Conv(e_1, p_1) @third
          return y
        }""".replace("BIAS", f"[{BIAS}, 0.0, 0.0, 0.0]"),
        fired=4,
    )


@pytest.mark.parametrize("half", [16, 29], ids=["whole vectors", "filled up"])
@pytest.mark.parametrize("count", [1, 3])
def test_units_move_nothing(graph_of, outputs_of, count, half):
    graph = placed(graph_of, outputs_of, units(count, half))
    assert operations(graph) == {"Conv": 2 + 3 * count, "Relu": 2 * count, "Where": count}
    widths = {n.output.tensor.shape[1] for n in graph if n.op == "Conv"}
    assert widths == {8, 16 if half == 16 else 32, 32 if half == 16 else 64}


SPLIT = """graph main(x: f16[2,8,4,4]) {
  k: f16[32,8,1,1] = const large "mapped k"
  a = Conv(x, k)
  left, right = Split(a) {axis=1, num_outputs=2}
  r = Relu(right)
  p: f16[16,16,1,1] = const large "mapped p"
  c = Conv(r, p)
  m = MaxPool(left) {kernel_shape=[2, 2], strides=[2, 2]}
  q: f16[8,16,1,1] = const large "mapped q"
  z = Conv(m, q)
  y = Conv(c, q)
  return y, z
}"""


def test_parts_of_a_split_lie_where_they_are(graph_of, outputs_of):
    graph = placed(graph_of, outputs_of, SPLIT)
    assert operations(graph) == {"Conv": 4, "Relu": 1, "MaxPool": 1}


PAIR = (
    """graph main(x: f16[2,8,3,5]) {
  k: f16[13,8,1,1] = const large "mapped k"
  l: f16[15,8,TAPS] = const large "mapped l"
  a = Relu(CONV)
  b = Relu(OTHER)
  j = Concat(a, b) {axis=1}
  p: f16[8,28,3,3] = const large "mapped p"
  y = Conv(j, p)
  return y
}""".replace("CONV", "c")
    .replace("  a = ", "  c = Conv(x, k)\n  a = ")
    .replace("OTHER", "d")
    .replace("  b = ", "  d = Conv(x, l)\n  b = ")
)


def test_the_second_of_two_convolutions_writes_into_the_first(graph_of, outputs_of):
    graph = placed(graph_of, outputs_of, PAIR.replace("TAPS", "1,1"))
    assert operations(graph) == {"Conv": 3, "Relu": 2, "Where": 1}


def test_many_taps_are_not_done_twice_for_places_that_others_have(graph_of, outputs_of):
    graph = placed(graph_of, outputs_of, PAIR.replace("TAPS", "3,3").replace("Conv(x, l)", "Conv(x, l) {pads=[1, 1, 1, 1]}"))
    assert operations(graph) == {"Conv": 3, "Relu": 2, "Concat": 1}
    assert [n.output.tensor.shape[1] for n in graph if n.op == "Concat"] == [32]


def with_text(text, *changes):
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


NEAR = {
    "f32": with_text(FILLED, ("f16", "f32")),
    "the graph returns it": with_text(FILLED, ("return y", "return y, c")),
    "a reader that wants neighbours": with_text(FILLED, ("return y", "z = Softmax(e) {axis=1} return y, z")),
    "what is made of zero is not finite": with_text(FILLED, ("Swish(c)", "Reciprocal(c)")),
    "weights are computed": with_text(
        FILLED, ("(x:", "(k: f16[13,8,1,1], x:"), ('k: f16[13,8,1,1] = const large "mapped k"', "")
    ),
    "a single pixel": with_text(FILLED, ("8,3,5", "8,1,1")),
    "a third more channels": with_text(FILLED, ("13", "12")),
    "a group that is no channel": with_text(FILLED, ("f16[13,1,3,3]", "f16[14,7,3,3]"), ("13", "14"), ("group=14", "group=2")),
    "halves that are read by many taps": with_text(SPLIT, ("[16,16,1,1]", "[16,16,3,3]")),
    "thirds": with_text(
        SPLIT,
        ("32,8", "48,8"),
        ("left, right =", "left, middle, right ="),
        ("outputs=2", "outputs=3"),
        ("return y, z", "n = Conv(middle, q) return y, z, n"),
    ),
    "rows are cut": with_text(SPLIT, ("axis=1", "axis=2"), ("16,16", "32,32"), ("8,16", "8,32")),
}


@pytest.mark.parametrize("text", NEAR.values(), ids=NEAR.keys())
def test_near_misses(leaves, text):
    leaves(place_channels, text)


WANTED = """graph main(x: f16[2,8,4,4]) {
  k: f16[32,8,1,1] = const large "mapped k"
  a = Conv(x, k)
  PARTS
  p: f16[16,16,1,1] = const large "mapped p"
  c = Conv(right, p)
  t: f16[16,16,3,3] = const large "mapped t"
  f = Conv(c, t) {pads=[1, 1, 1, 1]}
  j = Concat(left, f) {axis=1}
  u: f16[8,32,1,1] = const large "mapped u"
  y = Conv(j, u)
  return y
}"""


STEPS = f"{HALVES} two: i64[1] = const [2] left = Slice(a, zero, all, axis, two) right = Slice(a, half, all, axis)"


@pytest.mark.parametrize("width", [16, 15])
@pytest.mark.parametrize(("parts", "found"), [("left, right = Split(a) {axis=1, num_outputs=2}", "Slice"), (STEPS, "Gather")])
def test_what_is_wanted_side_by_side_is_put_there(graph_of, outputs_of, parts, found, width):
    text = with_text(WANTED, ("PARTS", parts)).replace("HALF", str(width)).replace("ALL", str(2 * width))
    text = text.replace("16,16", f"{width},{width}").replace("32", str(2 * width))
    stays = {"Split": 1} if found == "Slice" else {"Slice": 1}
    more = stays if width == 16 else {found: 1}
    assert operations(placed(graph_of, outputs_of, text)) == {"Conv": 4, "Concat": 1, **more}


def test_blocks_of_spread_constants():
    source = constant(np.arange(60, dtype=np.float16).reshape(3, 4, 5))
    whole = np.zeros((3, 9, 5), np.float16)
    whole[:, [7, 0, 3, 4]] = source.array()
    handle = spread(source, 1, (7, 0, 3, 4), 9)
    np.testing.assert_array_equal(handle.array(), whole)
    for index in (np.s_[0:3, 0:9, 0:5], np.s_[1:2, 3:8, 2:5], np.s_[0:2, 8:9, 0:1], np.s_[2:3, 0:1, 0:5]):
        np.testing.assert_array_equal(handle.block(index), whole[index])
    assert spread(source, 2, range(5), 5) is source
