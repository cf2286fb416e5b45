// MaxUnpool and Col2Im.
#include "conversions.cuh"

#if MI_COL2IM

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

#else

// from[place] = one more than the number of the last element that goes to this place, 0 where none does. Places count the
// elements of what was pooled.
extern "C" __global__ void unpool_sources(const i64* indices, MI_SOURCE* from, index_t count, i64 places) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    i64 place = indices[i];
    if (place < 0) place += places;
    if (place >= 0 && place < places) atomicMax(from + place, (MI_SOURCE)(i + 1));
  }
}

// y of `out` from what lies at the same coordinates within `implied`; both of MI_AXES axes.
extern "C" __global__ void unpool(const MI_T* x, const MI_SOURCE* from, MI_T* y, Indices<MI_AXES> out, Indices<MI_AXES> implied,
                                  int same, index_t count) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t place = same ? i : 0, rest = i, step = 1;
    bool inside = true;
    if (!same)
#pragma unroll
      for (int axis = MI_AXES - 1; axis >= 0; axis--) {
        index_t higher = rest / out.d[axis], at = rest - higher * out.d[axis];
        inside = inside && at < implied.d[axis];
        place += at * step;
        step *= implied.d[axis];
        rest = higher;
      }
    MI_SOURCE source = inside ? from[place] : 0;
    y[i] = source ? x[source - 1] : MI_T{};
  }
}
#endif
