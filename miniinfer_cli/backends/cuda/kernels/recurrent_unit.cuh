// One unit of a recurrent net for MI_ROWS sequences by a warp: its lanes share the unit's rows of the recurrence weights, which are
// read once. MI_PACK, the elements per load, divides the hidden size. Blocks are 32 threads wide.
#pragma once
#include "recurrent_cell.cuh"

// sums[g][i] = row g of r times state i, over the warp; `rows` states, MI_ROWS at most.
template <int G> MI_DEVICE void mi_dots(const MI_T* r, const acc_t* states, int hidden, int rows, acc_t (&sums)[G][MI_ROWS]) {
  long long gate = (long long)hidden * hidden;
#pragma unroll
  for (int g = 0; g < G; g++)
#pragma unroll
    for (int i = 0; i < MI_ROWS; i++) sums[g][i] = 0;
  for (int k = threadIdx.x * MI_PACK; k < hidden; k += 32 * MI_PACK) {
    Pack<MI_T, MI_PACK> w[G];
#pragma unroll
    for (int g = 0; g < G; g++) w[g] = *reinterpret_cast<const Pack<MI_T, MI_PACK>*>(r + g * gate + k);
#pragma unroll
    for (int i = 0; i < MI_ROWS; i++) {
      if (i >= rows) break;
      Pack<acc_t, MI_PACK> x = *reinterpret_cast<const Pack<acc_t, MI_PACK>*>(states + (long long)i * hidden + k);
#pragma unroll
      for (int g = 0; g < G; g++)
#pragma unroll
        for (int e = 0; e < MI_PACK; e++) sums[g][i] += (acc_t)widen(w[g].d[e]) * x.d[e];
    }
  }
#pragma unroll
  for (int g = 0; g < G; g++)
#pragma unroll
    for (int i = 0; i < MI_ROWS; i++) {
      if (i >= rows) break;
#pragma unroll
      for (int by = 16; by; by /= 2) sums[g][i] += __shfl_xor_sync(0xffffffffu, sums[g][i], by);
    }
}
// The sums of the lane's own state.
template <int G> MI_DEVICE void mi_own(const acc_t (&sums)[G][MI_ROWS], acc_t (&own)[G]) {
#pragma unroll
  for (int i = 0; i < MI_ROWS; i++)
    if (threadIdx.x == i)
#pragma unroll
      for (int g = 0; g < G; g++) own[g] = sums[g][i];
}

// One unit of `rows` sequences from n0 on; lane i finishes sequence i.
MI_DEVICE void mi_unit(const Net& net, const MI_T* r, const States& s, int d, int t, int n0, int rows, int j, bool last, int phase) {
  int hidden = net.size.hidden, lane = threadIdx.x;
  const MI_T* weights = r + ((long long)d * MI_GATES * hidden + j) * hidden;
  Place p = {d, t, j, n0 + lane, (long long)lane * hidden + j, last};
#if MI_NET == MI_GRU
  if (phase == 1) {
    acc_t sums[2][MI_ROWS], own[2];
    mi_dots<2>(weights, s.before, hidden, rows, sums);
    mi_own<2>(sums, own);
    if (lane < rows) mi_gates(net, p, own, s.before, s.update, s.reset, nullptr);
    return;
  }
  if (phase == 2) {
    acc_t sums[1][MI_ROWS], own[1];
    mi_dots<1>(weights + 2LL * hidden * hidden, s.reset, hidden, rows, sums);
    mi_own<1>(sums, own);
    if (lane < rows) mi_candidate(net, p, own[0], s.before, s.after, s.update, nullptr);
    return;
  }
#endif
  acc_t sums[MI_GATES][MI_ROWS], own[MI_GATES];
  mi_dots<MI_GATES>(weights, s.before, hidden, rows, sums);
  mi_own<MI_GATES>(sums, own);
  if (lane < rows) mi_cell(net, p, own, s.before, s.after, s.cells, nullptr);
}
