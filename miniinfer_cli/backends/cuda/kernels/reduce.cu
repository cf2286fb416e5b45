// Reductions along the last axis of [rows, length], and along the middle one of [outer, length, inner].
//
// MI_REDUCTION<MI_T, MI_R> is one of reduce.cuh. MI_N elements are read at once. MI_FROM_PARTS: x holds parts that an earlier
// stage left. MI_TO_PARTS: y takes parts. The axis is split over gridDim.y: `chunk` positions each, the results side by side.
#include "reduce.cuh"
#include "turn.cuh"

typedef MI_REDUCTION<MI_T, MI_R> Reduction;
typedef Reduction::Part Part;
#if MI_FROM_PARTS
typedef Part Element;
typedef Part Running;
MI_DEVICE void add(Part& a, Part b, i64) { a = Reduction::combine(a, b); }
MI_DEVICE Part settle(Part a) { return a; }
MI_DEVICE Part start() { return Reduction::settle(Reduction::start()); }
#else
typedef MI_T Element;
typedef Reduction::Running Running;
MI_DEVICE void add(Running& a, MI_T b, i64 at) { Reduction::add(a, b, at); }
MI_DEVICE Part settle(Running a) { return Reduction::settle(a); }
MI_DEVICE Running start() { return Reduction::start(); }
#endif
#if MI_TO_PARTS
typedef Part Result;
MI_DEVICE Part result(Part a, double) { return a; }
#else
typedef MI_R Result;
MI_DEVICE MI_R result(Part a, double count) { return Reduction::finish(a, count); }
#endif
struct CombineParts { MI_DEVICE Part operator()(Part a, Part b) const { return Reduction::combine(a, b); } };

#define MI_UNROLL 4  // loads in flight

// Groups of blockDim.x threads take a row each (group.cuh). length and chunk are multiples of MI_N.
extern "C" __global__ void reduce_rows(const Element* x, Result* y, index_t rows, index_t length, index_t chunk, double count) {
  mi_take_turn();
  index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
  index_t c = (index_t)blockIdx.y * chunk + (index_t)threadIdx.x * MI_N;
  index_t end = (index_t)blockIdx.y * chunk + chunk < length ? (index_t)blockIdx.y * chunk + chunk : length;
  index_t step = (index_t)blockDim.x * MI_N;
  Running running = start();
  if (row < rows) {
    const Element* from = x + row * length;
    for (; c + (MI_UNROLL - 1) * step < end; c += MI_UNROLL * step) {
      several<Element, MI_N> packs[MI_UNROLL];
#pragma unroll
      for (int u = 0; u < MI_UNROLL; u++) packs[u] = load_pack<Element, MI_N>(from + c + u * step);
#pragma unroll
      for (int u = 0; u < MI_UNROLL; u++)
#pragma unroll
        for (int k = 0; k < MI_N; k++) add(running, packs[u].d[k], (i64)(c + u * step + k));
    }
    for (; c < end; c += step) {
      several<Element, MI_N> pack = load_pack<Element, MI_N>(from + c);
#pragma unroll
      for (int k = 0; k < MI_N; k++) add(running, pack.d[k], (i64)(c + k));
    }
  }
  Part part = group_combine(settle(running), CombineParts());
  if (threadIdx.x == 0 && row < rows) y[row * (index_t)gridDim.y + blockIdx.y] = result(part, count);
}

// Each threadIdx.x takes MI_N neighbours of [outer, inner]; the threads of one column, blockDim.y, share its positions.
// columns = outer * inner / MI_N; inner is counted in elements and a multiple of MI_N.
extern "C" __global__ void reduce_columns(const Element* x, Result* y, index_t columns, index_t length, index_t inner, index_t chunk,
                                          double count) {
  mi_take_turn();
  MI_SHARED(Part, parts);
  index_t column = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
  bool inside = column < columns;
  index_t packs = inner / MI_N, outer = column / packs, i = (column - outer * packs) * MI_N;
  index_t begin = (index_t)blockIdx.y * chunk;
  index_t end = begin + chunk < length ? begin + chunk : length;
  Running running[MI_N];
#pragma unroll
  for (int k = 0; k < MI_N; k++) running[k] = start();
  if (inside) {
    index_t step = blockDim.y, r = begin + threadIdx.y;
    const Element* from = x + outer * length * inner + i;
    for (; r + (MI_UNROLL - 1) * step < end; r += MI_UNROLL * step) {
      several<Element, MI_N> loaded[MI_UNROLL];
#pragma unroll
      for (int u = 0; u < MI_UNROLL; u++) loaded[u] = load_pack<Element, MI_N>(from + (r + u * step) * inner);
#pragma unroll
      for (int u = 0; u < MI_UNROLL; u++)
#pragma unroll
        for (int k = 0; k < MI_N; k++) add(running[k], loaded[u].d[k], (i64)(r + u * step));
    }
    for (; r < end; r += step) {
      several<Element, MI_N> pack = load_pack<Element, MI_N>(from + r * inner);
#pragma unroll
      for (int k = 0; k < MI_N; k++) add(running[k], pack.d[k], (i64)r);
    }
  }
  Part part[MI_N];
#pragma unroll
  for (int k = 0; k < MI_N; k++) part[k] = settle(running[k]);
  int stride = blockDim.x * MI_N, mine = threadIdx.y * stride + threadIdx.x * MI_N;
  for (int half = blockDim.y >> 1; half > 0; half >>= 1) {
    __syncthreads();
    if ((int)threadIdx.y >= half && (int)threadIdx.y < 2 * half) {
#pragma unroll
      for (int k = 0; k < MI_N; k++) parts[mine + k] = part[k];
    }
    __syncthreads();
    if ((int)threadIdx.y < half) {
#pragma unroll
      for (int k = 0; k < MI_N; k++) part[k] = Reduction::combine(part[k], parts[mine + half * stride + k]);
    }
  }
  if (!inside || threadIdx.y != 0) return;
  Result* to = y + (outer * gridDim.y + blockIdx.y) * inner + i;
#pragma unroll
  for (int k = 0; k < MI_N; k++) to[k] = result(part[k], count);
}
