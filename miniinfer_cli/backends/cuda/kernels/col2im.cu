// Col2Im: columns added up where they lie in an image.
#include "conversions.cuh"

typedef computed<MI_T> C;
struct Geometry { int size[MI_AXES], count[MI_AXES], block[MI_AXES], stride[MI_AXES], dilation[MI_AXES], begin[MI_AXES]; };

// y [planes, sizes] from columns [planes, taps, counts]: each element adds up what the taps put there, in their order.
extern "C" __global__ void col2im(const MI_T* x, MI_T* y, Geometry g, index_t count, index_t pixels, int taps, index_t places) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t plane = i / pixels, rest = i - plane * pixels;
    int at[MI_AXES];
#pragma unroll
    for (int axis = MI_AXES - 1; axis >= 0; axis--) {
      index_t higher = rest / g.size[axis];
      at[axis] = (int)(rest - higher * g.size[axis]) + g.begin[axis];
      rest = higher;
    }
    C sum = C();
    for (int tap = 0; tap < taps; tap++) {
      int number = tap;
      bool reached = true;
      index_t place = 0, step = 1;
#pragma unroll
      for (int axis = MI_AXES - 1; axis >= 0; axis--) {
        int from = at[axis] - number % g.block[axis] * g.dilation[axis], where = from / g.stride[axis];
        number /= g.block[axis];
        reached = reached && from >= 0 && from == where * g.stride[axis] && where < g.count[axis];
        place += where * step;
        step *= g.count[axis];
      }
      if (reached) sum = (C)(sum + (C)widen(x[(plane * taps + tap) * places + place]));
    }
    y[i] = narrow<MI_T>(sum);
  }
}
