"""trim_captures: sub-graphs hold the constants that they read, and their nodes pass in only what is read."""

from miniinfer_cli.passes.trim_captures import trim_captures


def test_an_if_keeps_what_one_branch_reads(rewrites):
    rewrites(
        trim_captures,
        """graph main(c: bool[], x: f32[4], u: f32[4], y: f32[4]) {
          k: f32[4] = const [1, 2, 3, 4]
          z = If(c, k, x, u, y)
            then_branch: graph then(k: f32[4], x: f32[4], u: f32[4], y: f32[4]) { p = Add(x, k) return p }
            else_branch: graph else(k: f32[4], x: f32[4], u: f32[4], y: f32[4]) { return y }
          return z
        }""",
        """graph main(c: bool[], x: f32[4], u: f32[4], y: f32[4]) {
          z = If(c, x, y)
            then_branch: graph then(x: f32[4], y: f32[4]) { k_1: f32[4] = const [1.0, 2.0, 3.0, 4.0] p = Add(x, k_1) return p }
            else_branch: graph else(x: f32[4], y: f32[4]) { return y }
          return z
        }""",
        fired=2,
    )


def test_a_constant_that_is_only_returned_moves_in_too(rewrites):
    rewrites(
        trim_captures,
        """graph main(c: bool[]) {
          k: f32[2] = const [1, 2]
          z = If(c, k)
            then_branch: graph then(k: f32[2]) { return k }
            else_branch: graph else(k: f32[2]) { p = Neg(k) return p }
          return z
        }""",
        """graph main(c: bool[]) {
          z = If(c)
            then_branch: graph then() { k_1: f32[2] = const [1.0, 2.0] return k=k_1 }
            else_branch: graph else() { k_1: f32[2] = const [1.0, 2.0] p = Neg(k_1) return p }
          return z
        }""",
    )


def test_a_loop_keeps_its_carried_values(rewrites):
    rewrites(
        trim_captures,
        """graph main(x: f32[4], u: f32[4]) {
          m: i64[] = const 3
          k: f32[4] = const [1, 2, 3, 4]
          y = Loop(m, -, x, u, k) {n_captures=2}
            body: graph body(i: i64[], going: bool[], a: f32[4], u: f32[4], k: f32[4]) { b = Add(a, k) return going, b }
          return y
        }""",
        """graph main(x: f32[4], u: f32[4]) {
          m: i64[] = const 3
          y = Loop(m, -, x) {n_captures=0}
            body: graph body(i: i64[], going: bool[], a: f32[4]) {
              k_1: f32[4] = const [1.0, 2.0, 3.0, 4.0]
              b = Add(a, k_1)
              return going, b
            }
          return y
        }""",
        fired=2,
    )


def test_a_scan_keeps_states_and_scanned_inputs(rewrites):
    rewrites(
        trim_captures,
        """graph main(s: f32[2], xs: f32[3,2], u: f32[2], v: f32[2]) {
          t, ys = Scan(s, xs, u, v) {n_captures=2, num_scan_inputs=1}
            body: graph body(s: f32[2], x: f32[2], u: f32[2], v: f32[2]) { a = Add(s, x) b = Mul(a, v) return a, b }
          return t, ys
        }""",
        """graph main(s: f32[2], xs: f32[3,2], u: f32[2], v: f32[2]) {
          t, ys = Scan(s, xs, v) {n_captures=1, num_scan_inputs=1}
            body: graph body(s: f32[2], x: f32[2], v: f32[2]) { a = Add(s, x) b = Mul(a, v) return a, b }
          return t, ys
        }""",
    )


def test_what_is_read_or_returned_stays(leaves):
    leaves(
        trim_captures,
        """graph main(c: bool[], x: f32[4], y: f32[4]) {
          z = If(c, x, y)
            then_branch: graph then(x: f32[4], y: f32[4]) { p = Neg(x) return p }
            else_branch: graph else(x: f32[4], y: f32[4]) { return y }
          return z
        }""",
    )
