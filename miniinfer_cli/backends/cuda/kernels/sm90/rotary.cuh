// Heads in shared memory turned by the angles of their places, as rotary.cu does: rows of 128 bytes, swizzled, by boxes of 64 elements.
//
// MI_T: f16 or bf16. MI_CACHE: the type of cosines and sines. MI_TURNED: a head's first elements that are turned, multiples of 8, of
// 16 where half of them lies between the two of a pair. MI_INTERLEAVED: 1 where these lie side by side.
#pragma once
#include "types.cuh"

// cosines: null where nothing is turned. Row ids[of_batch batch + of_place place] of the caches, which have `rows`; where there are
// no ids, the row of that number.
struct Angles {
  const MI_CACHE *cosines, *sines;
  const i64* ids;
  i64 rows, of_batch, of_place;
};

MI_DEVICE i64 angle_row(const Angles& a, int batch, int place) {
  i64 row = batch * a.of_batch + place * a.of_place;
  if (!a.ids) return row;
  row = a.ids[row];
  if (row < 0) row += a.rows;
  return row < 0 ? 0 : row >= a.rows ? a.rows - 1 : row;
}

MI_DEVICE void turn_pair(MI_T& a, MI_T& b, MI_CACHE cosine, MI_CACHE sine) {
  float x = widen(a), y = widen(b), c = widen(cosine), s = widen(sine);
  a = narrow<MI_T>(c * x - s * y);
  b = narrow<MI_T>(s * x + c * y);
}

constexpr int CHUNK = 8;                                               // elements of 16 bytes
constexpr int ANGLES = MI_INTERLEAVED ? CHUNK / 2 : CHUNK;             // of a unit: one chunk, or two of half a head
constexpr int UNITS = MI_TURNED / 2 / ANGLES;                          // of a row
template <int BOX_ROWS> MI_DEVICE Pack<MI_T, CHUNK>* chunk_at(unsigned char* rows, int row, int chunk) {
  int column = chunk % CHUNK;
  return reinterpret_cast<Pack<MI_T, CHUNK>*>(rows + (chunk / CHUNK * BOX_ROWS + row) * 128 + ((column ^ row % 8) << 4));
}

// Rows of BOX_ROWS, by so many threads of which this is number `member`. Row r is at place0 + (r & mask), where that is below `places`.
template <int BOX_ROWS>
MI_DEVICE void turn_rows(
    unsigned char* rows, const Angles& angles, int batch, int place0, int mask, int places, int member, int members) {
#pragma unroll 4
  for (int i = member; i < BOX_ROWS * UNITS; i += members) {
    int row = i / UNITS, unit = i % UNITS, place = place0 + (row & mask);
    if (place >= places) continue;
    i64 from = angle_row(angles, batch, place) * (MI_TURNED / 2) + unit * ANGLES;
    Pack<MI_CACHE, ANGLES> c = *reinterpret_cast<const Pack<MI_CACHE, ANGLES>*>(angles.cosines + from);
    Pack<MI_CACHE, ANGLES> s = *reinterpret_cast<const Pack<MI_CACHE, ANGLES>*>(angles.sines + from);
    Pack<MI_T, CHUNK>* at = chunk_at<BOX_ROWS>(rows, row, unit);
    Pack<MI_T, CHUNK> a = *at;
#if MI_INTERLEAVED
#pragma unroll
    for (int e = 0; e < ANGLES; e++) turn_pair(a.d[2 * e], a.d[2 * e + 1], c.d[e], s.d[e]);
#else
    Pack<MI_T, CHUNK>* other = chunk_at<BOX_ROWS>(rows, row, unit + UNITS);
    Pack<MI_T, CHUNK> b = *other;
#pragma unroll
    for (int e = 0; e < ANGLES; e++) turn_pair(a.d[e], b.d[e], c.d[e], s.d[e]);
    *other = b;
#endif
    *at = a;
  }
}
