// The two products of squeeze-and-excitation in one launch: gate(MI_ACTIVATION(x squeeze + bias) excite + bias).
//
// Weights are [squeezed, channels] and [outputs, squeezed]. A block makes `share` outputs of an image (blockIdx.x, blockIdx.y), and
// for them the whole squeezed vector, which is so small that making it again costs less than handing it over. A warp makes one
// squeezed value after the other, its lanes side by side along the channels, MI_PACK of them at a time, which divides their number.
// The first MI_ROWS x MI_STEPS loads of a lane are in registers, and the rows of `excite` in shared memory, before x is there;
// MI_CONSTANT: nobody makes the weights meanwhile, so they are read before the kernel's turn. `helpers` threads share an output. MI_T is the type,
// MI_ACTIVATION and MI_GATE are functions of `epilogue` and `gate`. Blocks are 32 x MI_WARPS threads.
#include "epilogue.cuh"
#include "gates.cuh"
#include "packs.cuh"
#include "turn.cuh"

typedef computed<MI_T> real;
typedef several<MI_T, MI_PACK> pack_t;
#define MI_THREADS (32 * MI_WARPS)
#define MI_WIDE (16 / (int)sizeof(MI_T))  // elements of a load of rows of `excite`, which lie one behind the other

// What a warp reads of `squeeze` at a time: of MI_ROWS rows, every MI_WARPS-th from `row` on, MI_STEPS loads from `step` on.
struct Tile {
  pack_t d[MI_ROWS][MI_STEPS];
};
MI_DEVICE int mi_column(int step) { return (step * 32 + (int)threadIdx.x) * MI_PACK; }

MI_DEVICE void mi_load(Tile& tile, const MI_T* squeeze, int row, int step, int channels, int squeezed) {
#pragma unroll
  for (int r = 0; r < MI_ROWS; r++)
#pragma unroll
    for (int s = 0; s < MI_STEPS; s++)
      if (row + r * MI_WARPS < squeezed && mi_column(step + s) < channels)
        tile.d[r][s] = load_pack<MI_T, MI_PACK>(squeeze + (long long)(row + r * MI_WARPS) * channels + mi_column(step + s));
}

MI_DEVICE void mi_add(const Tile& tile, const MI_T* vector, real* totals, int row, int step, int channels, int squeezed) {
#pragma unroll
  for (int s = 0; s < MI_STEPS; s++) {
    if (mi_column(step + s) >= channels) return;
    pack_t pack = load_pack<MI_T, MI_PACK>(vector + mi_column(step + s));
    real factors[MI_PACK];
#pragma unroll
    for (int e = 0; e < MI_PACK; e++) factors[e] = widen(pack.d[e]);
#pragma unroll
    for (int r = 0; r < MI_ROWS; r++) {
      if (row + r * MI_WARPS >= squeezed) break;
#pragma unroll
      for (int e = 0; e < MI_PACK; e++) totals[r] += factors[e] * widen(tile.d[r][s].d[e]);
    }
  }
}

extern "C" __global__ void __launch_bounds__(MI_THREADS) excitation(
    const MI_T* x, const MI_T* squeeze, const MI_T* excite, const MI_T* squeeze_bias, const MI_T* excite_bias, MI_T* y, int images,
    int channels, int squeezed, int outputs, int share, int helpers, real alpha, real beta) {
#if !MI_CONSTANT
  mi_take_turn();
#endif
  MI_SHARED(real, before);
  real *behind = before + squeezed, *hidden = behind + share;
  MI_T* vector = reinterpret_cast<MI_T*>(before + (2 * squeezed + share + 3) / 4 * 4);
  MI_T* rows = vector + (channels + MI_WIDE - 1) / MI_WIDE * MI_WIDE;
  int me = threadIdx.y * 32 + threadIdx.x, steps = (channels + 32 * MI_PACK - 1) / (32 * MI_PACK);
  int first = blockIdx.x * share, mine = outputs - first < share ? outputs - first : share;

  Tile tile;
  mi_load(tile, squeeze, threadIdx.y, 0, channels, squeezed);
  bool is_there = true;
  int count = mine * squeezed, wide = count / MI_WIDE * MI_WIDE;
  const MI_T* from = excite + (long long)first * squeezed;
#pragma unroll 2
  for (int i = me * MI_WIDE; i < wide; i += MI_THREADS * MI_WIDE)
    store_pack<MI_T, MI_WIDE>(rows + i, load_pack<MI_T, MI_WIDE>(from + i));
#pragma unroll 1
  for (int i = wide + me; i < count; i += MI_THREADS) rows[i] = from[i];
#pragma unroll 1
  for (int i = me; i < squeezed; i += MI_THREADS) before[i] = squeeze_bias ? widen(squeeze_bias[i]) : real(0);
#pragma unroll 1
  for (int i = me; i < mine; i += MI_THREADS) behind[i] = excite_bias ? widen(excite_bias[first + i]) : real(0);
#if MI_CONSTANT
  mi_take_turn();
#endif

#pragma unroll 1
  for (int image = blockIdx.y; image < images; image += gridDim.y) {
#pragma unroll 1
    for (int c = me * MI_PACK; c < channels; c += MI_THREADS * MI_PACK)
      store_pack<MI_T, MI_PACK>(vector + c, load_pack<MI_T, MI_PACK>(x + (long long)image * channels + c));
    __syncthreads();
    for (int row = threadIdx.y; row < squeezed; row += MI_ROWS * MI_WARPS) {
      real totals[MI_ROWS] = {};
      for (int step = 0; step < steps; step += MI_STEPS) {
        if (!is_there) mi_load(tile, squeeze, row, step, channels, squeezed);
        is_there = steps <= MI_STEPS && squeezed <= MI_ROWS * MI_WARPS;  // all that there is, for every image
        mi_add(tile, vector, totals, row, step, channels, squeezed);
      }
#pragma unroll
      for (int r = 0; r < MI_ROWS; r++) {
        int one = row + r * MI_WARPS;
#pragma unroll
        for (int by = 16; by; by /= 2) totals[r] += __shfl_xor_sync(0xffffffffu, totals[r], by);
        if (one < squeezed && threadIdx.x == 0) hidden[one] = epilogue::MI_ACTIVATION(totals[r] + before[one]);
      }
    }
    __syncthreads();
    int part = me % helpers;
#pragma unroll 1
    for (int j = me / helpers; j - me / helpers < mine; j += MI_THREADS / helpers) {  // as often for every thread of a warp
      real sum = 0;
      if (j < mine)
        for (int s = part; s < squeezed; s += helpers) sum += hidden[s] * widen(rows[j * squeezed + s]);
#pragma unroll 1
      for (int by = helpers / 2; by; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
      if (j < mine && part == 0)
        y[(long long)image * outputs + first + j] = narrow<MI_T>(gate::MI_GATE(sum + behind[j], alpha, beta));
    }
  }
}
