// RotaryEmbedding: pairs of a head's first elements turned by the angle of its position.
// MI_INTERLEAVED: 1 where pairs lie side by side, 0 where half of the turned elements lies between. MI_N: elements that a thread
// takes (of either half), MI_WIDTH of them by one access.
#include "arithmetic.cuh"
#include "division.cuh"
#include "packs.cuh"

// The type computed in: f64 where either side is.
template <class A, class B> struct Wider { typedef float type; };
template <class B> struct Wider<double, B> { typedef double type; };
template <> struct Wider<float, double> { typedef double type; };
typedef Wider<computed<MI_T>, computed<MI_CACHE>>::type real;

MI_DEVICE void turn(MI_T& a, MI_T& b, MI_CACHE cosine, MI_CACHE sine) {
  real x = widen(a), y = widen(b), c = widen(cosine), s = widen(sine);
  a = narrow<MI_T>(c * x - s * y);
  b = narrow<MI_T>(s * x + c * y);
}

// MI_N elements, MI_WIDTH at a time.
MI_DEVICE void load_all(MI_T (&to)[MI_N], const MI_T* from) {
#pragma unroll
  for (int i = 0; i < MI_N; i += MI_WIDTH) {
    several<MI_T, MI_WIDTH> read = load_pack<MI_T, MI_WIDTH>(from + i);
#pragma unroll
    for (int e = 0; e < MI_WIDTH; e++) to[i + e] = read.d[e];
  }
}
MI_DEVICE void store_all(MI_T* to, const MI_T (&from)[MI_N]) {
#pragma unroll
  for (int i = 0; i < MI_N; i += MI_WIDTH) {
    several<MI_T, MI_WIDTH> written;
#pragma unroll
    for (int e = 0; e < MI_WIDTH; e++) written.d[e] = from[i + e];
    store_pack<MI_T, MI_WIDTH>(to + i, written);
  }
}

// A line is one head at one place: units of work of it, `turned` of them on pairs. by: dividers of units, inner and outer.
// rows: of the caches, picked by ids [batch, length]; 0 where the caches are [batch, length, half] themselves.
// heads_first: lines are [batch, heads, length], else [batch, length, heads]; lines of x lie these strides apart, those of y side by side.
extern "C" __global__ void rotary(
    const MI_T* x, const MI_CACHE* cosines, const MI_CACHE* sines, const i64* ids, MI_T* y, index_t count, index_t units,
    index_t inner, index_t outer, Dividers<3> by, index_t size, index_t half, index_t turned, i64 rows, i64 of_batch,
    i64 of_place, int heads_first, Indices<3> strides) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t line = divide(i, units, by, 0), unit = i - line * units;
    index_t rest = divide(line, inner, by, 1), second = line - rest * inner;
    index_t batch = divide(rest, outer, by, 2), first = rest - batch * outer;
    const MI_T* from = x + batch * strides.d[0] + first * strides.d[1] + second * strides.d[2];
    MI_T* to = y + line * size;
    if (unit >= turned) {
      index_t at = half * 2 + (unit - turned) * MI_WIDTH;
      store_pack<MI_T, MI_WIDTH>(to + at, load_pack<MI_T, MI_WIDTH>(from + at));
      continue;
    }
    i64 row = batch * of_batch + (heads_first ? second : first) * of_place;
    if (ids) {
      row = ids[row];
      if (row < 0) row += rows;
      row = row < 0 ? 0 : row >= rows ? rows - 1 : row;
    }
    const MI_CACHE *cosine = cosines + row * half, *sine = sines + row * half;
    index_t at = unit * MI_N;
#if MI_INTERLEAVED
    MI_T pairs[MI_N];
    load_all(pairs, from + at);
#pragma unroll
    for (int e = 0; e < MI_N; e += 2) turn(pairs[e], pairs[e + 1], cosine[(at + e) / 2], sine[(at + e) / 2]);
    store_all(to + at, pairs);
#else
    several<MI_T, MI_N> a = load_pack<MI_T, MI_N>(from + at), b = load_pack<MI_T, MI_N>(from + half + at);
    several<MI_CACHE, MI_N> c = load_pack<MI_CACHE, MI_N>(cosine + at), s = load_pack<MI_CACHE, MI_N>(sine + at);
#pragma unroll
    for (int e = 0; e < MI_N; e++) turn(a.d[e], b.d[e], c.d[e], s.d[e]);
    store_pack<MI_T, MI_N>(to + at, a);
    store_pack<MI_T, MI_N>(to + half + at, b);
#endif
  }
}
