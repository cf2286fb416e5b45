// Resize: x [outer, A, B, C, inner] to y [outer, OA, OB, OC, inner], the middle axes resampled by tables made before.
// A thread makes MI_V elements of y that lie together: along inner, or along C where inner is 1 (MI_ALONG).
#include "saturating.cuh"

struct Sizes { index_t outer, a, b, c, inner, oa, ob, oc; };

// The row (outer, a, b) and the element (c, inner) of a thread. The grid covers units with x and strides over rows with y.
struct Place { index_t o, a, b, c, i; };
MI_DEVICE Place place_of(const Sizes& s, index_t row, index_t unit) {
  Place p;
  index_t lead = row / s.ob;
  p.b = row - lead * s.ob;
  p.o = lead / s.oa;
  p.a = lead - p.o * s.oa;
#if MI_ALONG
  p.c = unit * MI_V;
  p.i = 0;
#else
  index_t wide = s.inner / MI_V;
  p.c = unit / wide;
  p.i = (unit - p.c * wide) * MI_V;
#endif
  return p;
}

#if MI_NEAREST

// taps: the source element of each element of an axis, -1 for one outside that becomes `value`.
extern "C" __global__ void resize_nearest(const MI_T* x, MI_T* y, Sizes s, const int* taps_a, const int* taps_b,
                                          const int* taps_c, MI_T value, index_t units, index_t rows) {
  index_t unit = mi_first();
  if (unit >= units) return;
  for (index_t row = (index_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += (index_t)gridDim.y * blockDim.y) {
    Place p = place_of(s, row, unit);
    int a = taps_a[p.a], b = taps_b[p.b];
    const MI_T* line = x + ((p.o * s.a + a) * s.b + b) * s.c * s.inner;
    Pack<MI_T, MI_V> out;
#if MI_ALONG
    int c[MI_V];
#pragma unroll
    for (int v = 0; v < MI_V; v++) c[v] = taps_c[p.c + v];
#pragma unroll
    for (int v = 0; v < MI_V; v++) out.d[v] = (a | b | c[v]) < 0 ? value : line[c[v]];
#else
    int c = taps_c[p.c];
    if ((a | b | c) < 0) for (int v = 0; v < MI_V; v++) out.d[v] = value;
    else out = *(const Pack<MI_T, MI_V>*)(line + c * s.inner + p.i);
#endif
    *(Pack<MI_T, MI_V>*)(y + (row * s.oc + p.c) * s.inner + p.i) = out;
  }
}

#else

typedef MI_C C;  // what is interpolated in, and the type of the weights

// Taps of each element of an axis, with weights; a first tap below 0 says that the element lies outside and becomes `value`.
// MI_TAPS_A ... are their numbers, 0 where only the arguments say. The last axis is summed first.
extern "C" __global__ void resize_weighted(const MI_T* x, MI_S* y, Sizes s, const int* taps_a, const int* taps_b,
                                           const int* taps_c, const C* weights_a, const C* weights_b, const C* weights_c,
                                           int count_a, int count_b, int count_c, C value, C least, C past, index_t units,
                                           index_t rows) {
  const int ta = MI_TAPS_A ? MI_TAPS_A : count_a, tb = MI_TAPS_B ? MI_TAPS_B : count_b, tc = MI_TAPS_C ? MI_TAPS_C : count_c;
  index_t unit = mi_first();
  if (unit >= units) return;
  for (index_t row = (index_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += (index_t)gridDim.y * blockDim.y) {
    Place p = place_of(s, row, unit);
    C sum[MI_V];
    bool outside = taps_a[p.a * ta] < 0 || taps_b[p.b * tb] < 0;
#if MI_ALONG
#pragma unroll
    for (int v = 0; v < MI_V; v++) {
      bool beyond = outside || taps_c[(p.c + v) * tc] < 0;
      sum[v] = value;
      if (beyond) continue;
      C all = 0;
      for (int i = 0; i < ta; i++) {
        C plane = 0;
        for (int j = 0; j < tb; j++) {
          const MI_T* line = x + ((p.o * s.a + taps_a[p.a * ta + i]) * s.b + taps_b[p.b * tb + j]) * s.c;
          C part = 0;
          for (int k = 0; k < tc; k++) part += (C)widen(line[taps_c[(p.c + v) * tc + k]]) * weights_c[(p.c + v) * tc + k];
          plane += part * weights_b[p.b * tb + j];
        }
        all += plane * weights_a[p.a * ta + i];
      }
      sum[v] = all;
    }
#else
    outside = outside || taps_c[p.c * tc] < 0;
#pragma unroll
    for (int v = 0; v < MI_V; v++) sum[v] = outside ? value : 0;
    if (!outside)
      for (int i = 0; i < ta; i++) {
        C plane[MI_V] = {};
        for (int j = 0; j < tb; j++) {
          const MI_T* line = x + ((p.o * s.a + taps_a[p.a * ta + i]) * s.b + taps_b[p.b * tb + j]) * s.c * s.inner + p.i;
          C part[MI_V] = {};
          for (int k = 0; k < tc; k++) {
            Pack<MI_T, MI_V> in = *(const Pack<MI_T, MI_V>*)(line + taps_c[p.c * tc + k] * s.inner);
            C weight = weights_c[p.c * tc + k];
#pragma unroll
            for (int v = 0; v < MI_V; v++) part[v] += (C)widen(in.d[v]) * weight;
          }
#pragma unroll
          for (int v = 0; v < MI_V; v++) plane[v] += part[v] * weights_b[p.b * tb + j];
        }
#pragma unroll
        for (int v = 0; v < MI_V; v++) sum[v] += plane[v] * weights_a[p.a * ta + i];
      }
#endif
    Pack<MI_S, MI_V> out;
#pragma unroll
    for (int v = 0; v < MI_V; v++) out.d[v] = finished<MI_S, MI_WHOLE, C>(MI_WHOLE ? (C)rint(sum[v]) : sum[v], least, past);
    *(Pack<MI_S, MI_V>*)(y + (row * s.oc + p.c) * s.inner + p.i) = out;
  }
}
#endif
