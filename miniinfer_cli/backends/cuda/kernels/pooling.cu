// MaxPool, AveragePool and LpPool over sliding windows, [N, spatial..., C]; with the channels first, N is N * C and C is 1.
// MI_T, MI_KIND (Maximum, Mean or Norm), MI_VEC channels a thread.
#include "division.cuh"

template <class C> struct Lowest { static MI_DEVICE C value() { return (C)-mi_infinity(); } };
template <> struct Lowest<i8> { static MI_DEVICE i8 value() { return -128; } };
template <> struct Lowest<u8> { static MI_DEVICE u8 value() { return 0; } };

// Each kind: where a total starts, what an element counts as, how two are joined, and what comes out for `n` elements.
// `p` is the norm's order.
template <class C> struct Maximum {
  static MI_DEVICE C start() { return Lowest<C>::value(); }
  static MI_DEVICE C element(C x, int) { return x; }
  static MI_DEVICE C join(C a, C b) { return b > a || b != b ? b : a; }  // NaN wins
  static MI_DEVICE C finish(C total, C, int) { return total; }
};
template <class C> struct Mean {
  static MI_DEVICE C start() { return C(0); }
  static MI_DEVICE C element(C x, int) { return x; }
  static MI_DEVICE C join(C a, C b) { return a + b; }
  static MI_DEVICE C finish(C total, C n, int) { return total / n; }
};
template <class C> struct Norm {
  static MI_DEVICE C start() { return C(0); }
  static MI_DEVICE C element(C x, int p) {
    C a = x < C(0) ? -x : x;
    return p == 1 ? a : p == 2 ? a * a : (C)pow(a, C(p));
  }
  static MI_DEVICE C join(C a, C b) { return a + b; }
  static MI_DEVICE C finish(C total, C, int p) { return p == 1 ? total : p == 2 ? (C)sqrt(total) : (C)pow(total, C(1) / C(p)); }
};

typedef computed<MI_T> real;
typedef Pack<MI_T, MI_VEC> pack_t;

// Three spatial axes; poolings over fewer have axes of size 1 in front.
// Divisions are by y and then packs.
struct PoolSizes { int packs, x[3], y[3], kernel[3], strides[3], dilations[3], begin[3], end[3]; };

// The taps of a window that fall on positions [low, high) of an axis; the window's tap 0 is at `base`.
struct Taps { int first, stop; };
MI_DEVICE Taps taps_within(int base, int dilation, int kernel, int low, int high) {
  int first = base >= low ? 0 : (low - base + dilation - 1) / dilation;  // divides at edges only
  int stop = base + (kernel - 1) * dilation < high ? kernel : base >= high ? 0 : (high - base + dilation - 1) / dilation;
  return {first, stop};
}

// padded: a mean counts padding as elements (but not what hangs over it).
extern "C" __global__ void pool(const MI_T* __restrict__ x, MI_T* __restrict__ y, PoolSizes s, Dividers<4> by, index_t count, int padded,
                                int p) {
  typedef MI_KIND<real> kind;
  index_t row_step = (index_t)s.packs * MI_VEC;
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t rest = divide(i, (index_t)s.packs, by, 3);
    index_t c = (i - rest * s.packs) * MI_VEC;
    Taps taps[3];
    int base[3];
    real n = real(1);
#pragma unroll
    for (int a = 2; a >= 0; a--) {
      index_t next = divide(rest, (index_t)s.y[a], by, a);
      base[a] = (int)(rest - next * s.y[a]) * s.strides[a] - s.begin[a];
      rest = next;
      taps[a] = taps_within(base[a], s.dilations[a], s.kernel[a], 0, s.x[a]);
      Taps counted = padded ? taps_within(base[a], s.dilations[a], s.kernel[a], -s.begin[a], s.x[a] + s.end[a]) : taps[a];
      int inside = counted.stop - counted.first;
      n *= real(inside > 1 ? inside : 1);
    }
    real total[MI_VEC];
#pragma unroll
    for (int k = 0; k < MI_VEC; k++) total[k] = kind::start();
    for (int z = taps[0].first; z < taps[0].stop; z++)
      for (int h = taps[1].first; h < taps[1].stop; h++) {
        index_t line = (rest * s.x[0] + base[0] + z * s.dilations[0]) * s.x[1] + base[1] + h * s.dilations[1];
        const MI_T* from = x + (line * s.x[2] + base[2]) * row_step + c;
#pragma unroll 4
        for (int v = taps[2].first; v < taps[2].stop; v++) {
          pack_t pack = *reinterpret_cast<const pack_t*>(from + (index_t)v * s.dilations[2] * row_step);
#pragma unroll
          for (int k = 0; k < MI_VEC; k++) total[k] = kind::join(total[k], kind::element(widen(pack.d[k]), p));
        }
      }
    pack_t result;
#pragma unroll
    for (int k = 0; k < MI_VEC; k++) result.d[k] = narrow<MI_T>(kind::finish(total[k], n, p));
    *reinterpret_cast<pack_t*>(y + i * MI_VEC) = result;
  }
}

// The maximum and where it was: an index among all of x, in planes of s.x whose axes run in the opposite order with
// column_major. Of equal values the first of the window, and a NaN before all others; -1 of its plane for a window of padding.
extern "C" __global__ void max_pool_indices(const MI_T* __restrict__ x, MI_T* __restrict__ y, i64* __restrict__ where, PoolSizes s,
                                            Dividers<4> by, index_t count, int column_major) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t rest = i;
    int base[3];
    Taps taps[3];
#pragma unroll
    for (int a = 2; a >= 0; a--) {
      index_t next = divide(rest, (index_t)s.y[a], by, a);
      base[a] = (int)(rest - next * s.y[a]) * s.strides[a] - s.begin[a];
      rest = next;
      taps[a] = taps_within(base[a], s.dilations[a], s.kernel[a], 0, s.x[a]);
    }
    index_t plane = (index_t)s.x[0] * s.x[1] * s.x[2];
    real best = Lowest<real>::value();
    index_t found = -1;
    for (int z = taps[0].first; z < taps[0].stop; z++)
      for (int h = taps[1].first; h < taps[1].stop; h++)
        for (int v = taps[2].first; v < taps[2].stop; v++) {
          index_t iz = base[0] + z * s.dilations[0], iy = base[1] + h * s.dilations[1], ix = base[2] + v * s.dilations[2];
          real value = widen(x[rest * plane + (iz * s.x[1] + iy) * s.x[2] + ix]);
          if (found < 0 || value > best || (value != value && best == best)) {
            best = value;
            found = column_major ? (ix * s.x[1] + iy) * s.x[0] + iz : (iz * s.x[1] + iy) * s.x[2] + ix;
          }
        }
    y[i] = narrow<MI_T>(best);
    where[i] = (i64)rest * plane + found;
  }
}
