// DeformConv: its reads as the columns of a matrix product, and the bias where the library made the product.
#include "types.cuh"

typedef MI_C C;  // what is interpolated in
#define CORNERS (1 << MI_AXES)

struct Geometry { int size[MI_AXES], out[MI_AXES], kernel[MI_AXES], stride[MI_AXES], dilation[MI_AXES], begin[MI_AXES]; };

// columns [n, channels, taps, places] of x [n, channels, pixels], read at the usual places plus offset [n, groups, taps, axes,
// places] and multiplied by mask [n, groups, taps, places], which may be null. A thread takes every gridDim.y-th channel of
// its group.
extern "C" __global__ void deform_columns(const MI_T* x, const MI_T* offset, const MI_T* mask, MI_S* columns, Geometry g,
                                          index_t count, int groups, int per_group, int taps, index_t pixels, index_t places) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t lead = i / places, place = i - lead * places, group = lead / taps;
    int tap = (int)(lead - group * taps);
    index_t index[CORNERS];
    C weight[CORNERS];
#pragma unroll
    for (int k = 0; k < CORNERS; k++) { index[k] = 0; weight[k] = 1; }
    index_t rest = place, step = 1;
    int number = tap;
#pragma unroll
    for (int axis = MI_AXES - 1; axis >= 0; axis--) {
      index_t higher = rest / g.out[axis];
      int o = (int)(rest - higher * g.out[axis]), t = number % g.kernel[axis], size = g.size[axis];
      rest = higher;
      number /= g.kernel[axis];
      C at = (C)(o * g.stride[axis] - g.begin[axis] + t * g.dilation[axis]) +
             (C)widen(offset[(lead * MI_AXES + axis) * places + place]);
      C low = floor(at);
#pragma unroll
      for (int k = 0; k < CORNERS; k++) {
        C side = low + (C)(k >> axis & 1), distance = at - side;
        bool inside = side >= 0 && side < size;
        weight[k] *= (1 - (distance < 0 ? -distance : distance)) * (C)inside;
        index[k] += (inside ? (index_t)side : 0) * step;  // what lies outside weighs nothing, wherever it is read
      }
      step *= size;
    }
    C factor = mask ? (C)widen(mask[i]) : (C)1;
    for (int c = blockIdx.y; c < per_group; c += gridDim.y) {
      index_t channel = group * per_group + c;
      const MI_T* plane = x + channel * pixels;
      C sum = 0;
#pragma unroll
      for (int k = 0; k < CORNERS; k++) sum += (C)widen(plane[index[k]]) * weight[k];
      columns[(channel * taps + tap) * places + place] = narrow<MI_S>(mask ? sum * factor : sum);
    }
  }
}

// y [n, features, places] plus bias [features].
extern "C" __global__ void add_bias(MI_T* y, const MI_T* bias, index_t count, int features, index_t places) {
  for (index_t i = mi_first(); i < count; i += mi_step())
    y[i] = narrow<MI_T>((C)widen(y[i]) + (C)widen(bias[i / places % features]));
}
