// MaxPool of halves or f32, [N, H, W, C], by windows of MI_DOWN x MI_ACROSS neighbours, each of which holds something: MI_T, MI_INDEX.
// A thread makes 16 bytes of a pixel, and has all that it reads under way at once. What lies beyond the image is read at its
// edge, which the window holds in any case.
#include "division.cuh"
#include "packs.cuh"
#include "pairs.cuh"

// Along the height and the width; divisions are by y and then packs.
struct MaxSizes { int packs, x[2], y[2], strides[2], begin[2]; };

MI_DEVICE int within(int at, int size) { return at < 0 ? 0 : at < size ? at : size - 1; }

extern "C" __global__ void max_pool(const u32* __restrict__ x, u32* __restrict__ y, MaxSizes s, Dividers<3> by, index_t count) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t rest = divide(i, (index_t)s.packs, by, 2), line = divide(rest, (index_t)s.y[1], by, 1);
    index_t image = divide(line, (index_t)s.y[0], by, 0), pack = i - rest * s.packs;
    int top = (int)(line - image * s.y[0]) * s.strides[0] - s.begin[0], left = (int)(rest - line * s.y[1]) * s.strides[1] - s.begin[1];
    several<u32, 4> found[MI_DOWN][MI_ACROSS];
#pragma unroll
    for (int r = 0; r < MI_DOWN; r++)
#pragma unroll
      for (int c = 0; c < MI_ACROSS; c++) {
        index_t pixel = (image * s.x[0] + within(top + r, s.x[0])) * s.x[1] + within(left + c, s.x[1]);
        found[r][c] = load_pack<u32, 4>(x + (pixel * s.packs + pack) * 4);
      }
#pragma unroll
    for (int n = 1; n < MI_DOWN * MI_ACROSS; n++)
#pragma unroll
      for (int k = 0; k < 4; k++)
        found[0][0].d[k] = larger<MI_T>(found[0][0].d[k], found[n / MI_ACROSS][n % MI_ACROSS].d[k]);
    store_pack<u32, 4>(y + i * 4, found[0][0]);
  }
}
