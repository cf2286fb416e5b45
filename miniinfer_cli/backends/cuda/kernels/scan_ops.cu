// CumSum, CumProd: running results along one axis. Places count in the direction of the run: 0 is the last element where it
// is reversed. A long axis is cut into parts; then totals of the parts come first, their running results, and the parts last.
#include "conversions.cuh"
#include "scanning.cuh"

typedef MI_C C;  // what is accumulated in

#if MI_PRODUCT
struct Op { MI_DEVICE C operator()(C a, C b) const { return a * b; } };
#else
struct Op { MI_DEVICE C operator()(C a, C b) const { return a + b; } };
#endif
MI_DEVICE C neutral() { return (C)MI_PRODUCT; }

#define EACH 4  // elements of a thread in one round over a row

MI_DEVICE void load(const MI_T* row, index_t n, index_t place, bool reverse, bool packed, C* out) {
  if (packed && place < n) {
    Pack<MI_T, EACH> pack = *(const Pack<MI_T, EACH>*)(row + (reverse ? n - EACH - place : place));
#pragma unroll
    for (int i = 0; i < EACH; i++) out[i] = widen(pack.d[reverse ? EACH - 1 - i : i]);
    return;
  }
#pragma unroll
  for (int i = 0; i < EACH; i++) out[i] = place + i < n ? (C)widen(row[reverse ? n - 1 - place - i : place + i]) : neutral();
}
MI_DEVICE void store(MI_T* row, index_t n, index_t place, bool reverse, bool packed, const C* in) {
  if (packed && place < n) {
    Pack<MI_T, EACH> pack;
#pragma unroll
    for (int i = 0; i < EACH; i++) pack.d[reverse ? EACH - 1 - i : i] = narrow<MI_T>(in[i]);
    *(Pack<MI_T, EACH>*)(row + (reverse ? n - EACH - place : place)) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < EACH; i++)
    if (place + i < n) row[reverse ? n - 1 - place - i : place + i] = narrow<MI_T>(in[i]);
}

// Rows of n contiguous elements, in `parts` of `part` elements each. A block (blockDim.y == 1) or each of its warps takes
// a part. Where totals is given and y is not, totals [rows, parts] is written; where both are, it holds where parts start.
extern "C" __global__ void scan_rows(const MI_T* x, MI_T* y, C* totals, index_t count, index_t n, index_t part, index_t parts,
                                     int exclusive, int reverse) {
  bool packed = n % EACH == 0;
  Op op;
  for (index_t g = (index_t)blockIdx.x * blockDim.y + threadIdx.y; g < count; g += (index_t)gridDim.x * blockDim.y) {
    index_t row = g / parts, from = (g - row * parts) * part, to = from + part < n ? from + part : n;
    C carry = totals && y ? totals[g] : neutral();
    for (index_t round = from; round < to; round += (index_t)blockDim.x * EACH) {
      index_t place = round + (index_t)threadIdx.x * EACH;
      C items[EACH], whole;
      load(x + row * n, place < to ? n : 0, place, reverse, packed, items);
      if (place >= to)
#pragma unroll
        for (int i = 0; i < EACH; i++) items[i] = neutral();
      C mine = op(op(items[0], items[1]), op(items[2], items[3]));
      C before = blockDim.y > 1 ? warp_exclusive(mine, neutral(), op, whole) : block_exclusive(mine, neutral(), op, whole);
      before = op(carry, before);
      carry = op(carry, whole);
      if (!y || place >= to) continue;
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        C after = op(before, items[i]);
        items[i] = exclusive ? before : after;
        before = after;
      }
      store(y + row * n, n, place, reverse, packed, items);
    }
    if (!y && threadIdx.x == 0) totals[g] = carry;
  }
}

MI_DEVICE index_t size_of(const Indices<MI_RANK>& shape, int from, int to) {
  index_t size = 1;
  for (int i = from; i < to; i++) size *= shape.d[i];
  return size;
}

// The same with a thread for each part of a column: the axis is any one of `shape`, read from `axis` where that is given.
// `count` is the number of columns times parts at most: it is worked out here where the axis is not known before.
extern "C" __global__ void scan_columns(const MI_T* x, MI_T* y, C* totals, Indices<MI_RANK> shape, int fixed, const MI_AXIS* axis,
                                        index_t part, index_t parts, int exclusive, int reverse) {
  int at = axis ? (int)*axis : fixed;
  if (at < 0) at += MI_RANK;
  at = at < 0 ? 0 : at >= MI_RANK ? MI_RANK - 1 : at;
  index_t outer = size_of(shape, 0, at), n = shape.d[at], inner = size_of(shape, at + 1, MI_RANK);
  Op op;
  for (index_t g = mi_first(); g < outer * parts * inner; g += mi_step()) {
    index_t lead = g / inner, column = g - lead * inner, row = lead / parts, from = (lead - row * parts) * part;
    index_t to = axis || from + part > n ? n : from + part, origin = row * n * inner + column;
    C carry = totals && y ? totals[g] : neutral();
    for (index_t place = from; place < to; place++) {
      index_t i = origin + (reverse ? n - 1 - place : place) * inner;
      C after = op(carry, (C)widen(x[i]));
      if (y) y[i] = narrow<MI_T>(exclusive ? carry : after);
      carry = after;
    }
    if (!y) totals[g] = carry;
  }
}

// totals [outer, parts, inner] become what comes before each part; a warp for each column.
extern "C" __global__ void scan_totals(C* totals, index_t columns, index_t parts, index_t inner) {
  Op op;
  int lane = threadIdx.x & 31;
  for (index_t g = mi_first() >> 5; g < columns; g += mi_step() >> 5) {
    index_t lead = g / inner;
    C* at = totals + lead * parts * inner + (g - lead * inner);
    C carry = neutral();
    for (index_t i = 0; i < parts; i += 32) {
      C total = i + lane < parts ? at[(i + lane) * inner] : neutral(), whole;
      C before = op(carry, warp_exclusive(total, neutral(), op, whole));
      carry = op(carry, whole);
      if (i + lane < parts) at[(i + lane) * inner] = before;
    }
  }
}
