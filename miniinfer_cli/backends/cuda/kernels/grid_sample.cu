// GridSample: each place takes the elements around its coordinates, by their weights.
#include "saturating.cuh"

typedef MI_C C;  // what is computed in

#define TAPS (MI_MODE == 0 ? 1 : MI_MODE == 1 ? 2 : 4)  // nearest, linear, cubic
#define FAR ((C)(1 << 30))                              // as good as infinite, and still an integer

MI_DEVICE C cubic(C distance) {
  const C a = (C)-0.75;
  if (distance <= 1) return ((a + 2) * distance - (a + 3)) * distance * distance + 1;
  if (distance < 2) return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a;
  return 0;
}
MI_DEVICE int modulo(int a, int b) { int r = a % b; return r < 0 ? r + b : r; }

// The elements of an axis of `size` around a coordinate in [-1, 1], with their weights.
MI_DEVICE void taps_of(C coordinate, int size, bool align_corners, int* taps, C* weights) {
  C place = align_corners ? (coordinate + 1) / 2 * (size - 1) : ((coordinate + 1) * size - 1) / 2;
  if (!(place >= -FAR)) place = -FAR;  // NaN too
  if (place > FAR) place = FAR;
  if (MI_MODE == 0) place = rint(place);
  int base = (int)floor(place);
  C part = place - base;
#pragma unroll
  for (int k = 0; k < TAPS; k++) {
    int tap = base + k - (MI_MODE == 2);
    C distance = part - (k - 1);
    C weight = MI_MODE == 0 ? 1 : MI_MODE == 1 ? (k ? part : 1 - part) : cubic(distance < 0 ? -distance : distance);
#if MI_PADDING == 0  // zeros
    if (tap < 0 || tap >= size) weight = 0;
#elif MI_PADDING == 2  // reflection about the centers, or the outer edges, of the end elements
    if (align_corners) {
      int turned = modulo(tap, size > 1 ? 2 * (size - 1) : 1) - (size - 1);
      tap = (size - 1) - (turned < 0 ? -turned : turned);
    } else {
      tap = modulo(tap, 2 * size);
      if (tap >= size) tap = 2 * size - 1 - tap;
    }
#endif
    taps[k] = tap < 0 ? 0 : tap >= size ? size - 1 : tap;
    weights[k] = weight;
  }
}

MI_DEVICE constexpr int corners(int axes) { return axes == 0 ? 1 : TAPS * corners(axes - 1); }

// x [n, channels, pixels], grid [n, places, axes], y [n, channels, places]; a thread takes every gridDim.y-th channel of a place.
extern "C" __global__ void grid_sample(const MI_T* x, const MI_G* grid, MI_T* y, Ints<MI_AXES> sizes, index_t pixels,
                                       index_t places, int channels, index_t count, int align_corners, C least, C past) {
  for (index_t g = mi_first(); g < count; g += mi_step()) {
    index_t image = g / places, place = g - image * places;
    int taps[MI_AXES][TAPS];
    C weights[MI_AXES][TAPS];
#pragma unroll
    for (int axis = 0; axis < MI_AXES; axis++)
      taps_of((C)widen(grid[g * MI_AXES + MI_AXES - 1 - axis]), sizes.d[axis], align_corners != 0, taps[axis], weights[axis]);
    for (int channel = blockIdx.y; channel < channels; channel += gridDim.y) {
      const MI_T* plane = x + (image * channels + channel) * pixels;
      C sum = 0;
#pragma unroll
      for (int corner = 0; corner < corners(MI_AXES); corner++) {
        index_t at = 0;
        C weight = 1;
#pragma unroll
        for (int axis = 0, rest = corners(MI_AXES); axis < MI_AXES; axis++) {
          rest /= TAPS;
          int k = corner / rest % TAPS;
          at = at * sizes.d[axis] + taps[axis][k];
          weight *= weights[axis][k];
        }
        sum += (C)widen(plane[at]) * weight;
      }
      MI_T result = finished<MI_T, MI_WHOLE, C>(MI_WHOLE ? (C)trunc(sum) : sum, least, past);
      y[(image * channels + channel) * places + place] = result;
    }
  }
}
