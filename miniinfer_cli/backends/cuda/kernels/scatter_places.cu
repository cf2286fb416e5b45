// What is to be known about the places of updates when any number of them can share one.
#include "places.cuh"

// Each place learns its last update; `last` holds -1 before.
extern "C" __global__ void scatter_claim(const MI_I* __restrict__ indices, index_t* __restrict__ last, index_t count, MI_PLACES) {
  for (index_t p = mi_first(); p < count; p += mi_step()) {
    index_t place = MI_PLACE(p);
    if (place >= 0) atomicMax(last + place, p);
  }
}

// Each update's place; `outside`, more than every other, where an index is outside.
extern "C" __global__ void scatter_places(const MI_I* __restrict__ indices, index_t* __restrict__ places, index_t count,
                                          index_t outside, MI_PLACES) {
  for (index_t p = mi_first(); p < count; p += mi_step()) {
    index_t place = MI_PLACE(p);
    places[p] = place < 0 ? outside : place;
  }
}
