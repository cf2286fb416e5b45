// What generated kernels of normalized rows use; see codegen/normalizing.py.
#pragma once
#include "pointwise.cuh"
#include "row_moments.cuh"

// The row of a table of `size` rows that an index means, counted from the end where it is negative; the nearest where it is outside.
template <class I> MI_DEVICE index_t table_row(I index, index_t size) {
  i64 at = index < 0 ? (i64)index + size : (i64)index;
  return at < 0 ? 0 : at < size ? (index_t)at : size - 1;
}
