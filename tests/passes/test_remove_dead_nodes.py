"""remove_dead_nodes takes what nobody reads, chains included, and nothing else."""

from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes


def test_a_chain_that_ends_nowhere_goes_whole(rewrites):
    rewrites(
        remove_dead_nodes,
        """graph main(x: f32[batch,3]) {
          y = Softmax(x)
          a = Transpose(x)
          b = Shape(a)
          c = Softmax(y)
          return y
        }""",
        """graph main(x: f32[batch,3]) {
          y = Softmax(x)
          return y
        }""",
        fired=3,
    )


def test_a_node_with_one_result_in_use_stays(leaves):
    leaves(
        remove_dead_nodes,
        """graph main(x: f32[batch,4]) {
          y, z = Split(x) {axis=1, num_outputs=2}
          return z
        }""",
    )


def test_a_returned_value_is_in_use(leaves):
    leaves(
        remove_dead_nodes,
        """graph main(x: f32[batch,4]) {
          y = Softmax(x)
          z = Softmax(y)
          return z, early=y
        }""",
    )
