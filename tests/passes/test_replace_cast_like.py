"""replace_cast_like: the type that is meant stands in the node."""

from miniinfer_cli.passes.replace_cast_like import replace_cast_like


def test_the_type_of_the_second_operand_becomes_an_attribute(rewrites):
    rewrites(
        replace_cast_like,
        "graph main(x: f32[batch], like: i64[3]) { y = CastLike(x, like) {saturate=0} return y }",
        "graph main(x: f32[batch], like: i64[3]) { y = Cast(x) {saturate=0, to=7} return y }",
    )


def test_a_cast_stays(leaves):
    leaves(replace_cast_like, "graph main(x: f32[batch]) { y = Cast(x) {to=7} return y }")
