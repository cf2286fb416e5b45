// MaxUnpool: elements put back where a pooling found them, zeros elsewhere.
#include "types.cuh"

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
