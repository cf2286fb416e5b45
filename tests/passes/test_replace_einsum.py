"""replace_einsum: what is one product of matrices is a MatMul; what sums over more, or puts axes elsewhere, stays."""

import pytest

from miniinfer_cli.passes.replace_einsum import replace_einsum


def swapped(value: str) -> str:
    return f"{value}_swapped = Transpose({value}) {{perm=[0, 1, 3, 2]}}"


@pytest.mark.parametrize(
    ("inputs", "equation", "after"),
    [
        ("x: f32[batch,2,seq,4], y: f32[batch,2,w,4]", "bhid,bhjd->bhij", f"{swapped('y')} z = MatMul(x, y_swapped)"),
        ("x: f32[batch,2,seq,w], y: f32[batch,2,w,4]", "bhij,bhjd->bhid", "z = MatMul(x, y)"),
        ("x: f32[batch,2,seq,w], y: f32[batch,2,w,4]", "...ij,...jk", "z = MatMul(x, y)"),
        ("x: f32[batch,2,w,seq], y: f32[batch,2,w,4]", "bhji,bhjd->bhid", f"{swapped('x')} z = MatMul(x_swapped, y)"),
        ("x: f32[batch,2,w,seq], y: f32[batch,2,4,w]", "bhji,bhdj->bhdi", "z = MatMul(y, x)"),
        ("x: f32[seq,4], y: f32[4,w]", "ij,jk", "z = MatMul(x, y)"),
        ("x: f32[batch,2,seq,4], y: f32[4,3]", "bhik,kn->bhin", "z = MatMul(x, y)"),
        ("y: f32[4,3], x: f32[batch,seq,4]", "kn,bik->bin", "z = MatMul(x, y)"),
        ("x: f32[batch,seq,4], y: f32[3,4]", "bik,nk->bin", "y_swapped = Transpose(y) {perm=[1, 0]} z = MatMul(x, y_swapped)"),
    ],
)
def test_one_product(rewrites, inputs, equation, after):
    names = ", ".join(part.split(":")[0] for part in inputs.split(", "))
    start = f"graph main({inputs}) {{"
    rewrites(replace_einsum, f'{start} z = Einsum({names}) {{equation="{equation}"}} return z }}', f"{start} {after} return z }}")


@pytest.mark.parametrize(
    ("inputs", "equation"),
    [
        ("x: f32[batch,2,seq,4], y: f32[batch,2,w,4]", "bhid,bhjd->bijh"),  # heads last
        ("x: f32[batch,seq,2,4], y: f32[batch,w,2,4]", "bihd,bjhd->bhij"),
        ("x: f32[batch,2,seq,4], y: f32[1,2,w,4]", "...id,...jd->...ij"),  # one of the batch is repeated
        ("x: f32[batch,2,seq,4], y: f32[batch,2,seq,4]", "bhid,bhid->bh"),  # two summed axes
        ("x: f32[batch,seq], y: f32[batch,seq]", "bi,bi->bi"),  # none
        ("x: f32[4,4], y: f32[4,3]", "ii,ij->ij"),
        ("x: f32[batch,seq,4], y: f32[batch,w,4]", "bik,bjk->ij"),  # the batch is summed, too
        ("x: f32[seq,4], y: f32[4]", "ij,j->i"),
        ("x: f32[batch,2,seq,4], y: f32[batch,4,3]", "bhik,bkn->bhin"),  # rows of two axes beside a batch
    ],
)
def test_what_is_more_stays(leaves, inputs, equation):
    leaves(replace_einsum, f'graph main({inputs}) {{ z = Einsum(x, y) {{equation="{equation}"}} return z }}')


def test_other_numbers_of_operands_stay(leaves):
    leaves(replace_einsum, 'graph main(x: f32[seq,4]) { z = Einsum(x) {equation="ij->ji"} return z }')
