// Where index tensors point: the element or slice of a tensor that belongs to position p of the indices.
// With MI_ELEMENTS each index (of type MI_I) is the coordinate of one element along an axis of `extent` elements `stride`
// apart, whose other coordinates are those of p; without, each vector of MI_RANK indices has the coordinates of a slice, and
// after `extent` vectors follow those of the next batch of `stride` slices. Arguments are made by places.py.
#pragma once
#include "copying.cuh"

#define MI_PLACES \
  Indices<MI_RANK> sizes, Dividers<MI_RANK> by, Indices<MI_RANK> strides, index_t extent, index_t stride

// An index counted from the end where it is negative; -1 where it is outside.
MI_DEVICE index_t counted(MI_I index, index_t size) {
  i64 at = index < 0 ? (i64)index + size : (i64)index;
  return at >= 0 && at < size ? (index_t)at : (index_t)-1;
}

// The same, but the nearest end where it is outside: for reading.
MI_DEVICE index_t clamped(MI_I index, index_t size) {
  i64 at = index < 0 ? (i64)index + size : (i64)index;
  return at < 0 ? 0 : at < size ? (index_t)at : size - 1;
}

#ifdef MI_RANK
// The number of the element, or of the slice. Indices outside their axis are clamped, or make it -1.
template <bool Clamp>
MI_DEVICE index_t place_of(index_t p, const MI_I* __restrict__ indices, const Indices<MI_RANK>& sizes,
                           const Dividers<MI_RANK>& by, const Indices<MI_RANK>& strides, index_t extent, index_t stride) {
#ifdef MI_ELEMENTS
  index_t at = Clamp ? clamped(indices[p], extent) : counted(indices[p], extent);
  return Clamp || at >= 0 ? offset_of(p, sizes, by, strides) + at * stride : (index_t)-1;
#else
  index_t place = p >= extent ? p / extent * stride : 0;
  bool inside = true;
#pragma unroll
  for (int d = 0; d < MI_RANK; d++) {
    MI_I index = indices[p * MI_RANK + d];
    index_t at = Clamp ? clamped(index, sizes.d[d]) : counted(index, sizes.d[d]);
    inside = inside && (Clamp || at >= 0);
    place += at * strides.d[d];
  }
  return inside ? place : (index_t)-1;
#endif
}

// For writing, where these are the names of the kernel's parameters.
#define MI_PLACE(p) place_of<false>(p, indices, sizes, by, strides, extent, stride)
#endif
