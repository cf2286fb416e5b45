// The middle of a selection: from counts of blocks to the offsets at which they write.
#include "compaction.cuh"

extern "C" __global__ void offsets_of_counts(index_t* counts, int blocks, i64* total0, i64* total1, i64* total2) {
  scan_to_offsets(counts, blocks, total0, total1, total2);
}
