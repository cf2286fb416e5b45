// Weights of 4 bits, packed as sm90/row_product.cu reads them (form 2), as floats in rows: for products of many rows.
//
// A warp has 64 features by 16 of k, which it turns in shared memory. MI_S: of scales and results; MI_Z: of zero points, which have
// MI_BASE more (MI_ZEROS), else numbers have MI_MIDDLE more. MI_K_FIRST: 1 where rows of the result are of k. MI_PACK: neighbours in a
// row that are written at one time.
#include "packs.cuh"
#include "turn.cuh"

#define MI_WARPS 8
constexpr int ROW = (MI_K_FIRST ? 64 : 16) + 16 / (int)sizeof(MI_S);  // elements from row to row of a tile: other banks

extern "C" __global__ void __launch_bounds__(32 * MI_WARPS) dequantize_nibbles(
    const u8* weights, const MI_S* scales, const MI_Z* zeros, MI_S* d, int features, int k, int strips, int sixteens, int groups, int group) {
  mi_take_turn();
  __shared__ __align__(16) MI_S tiles[MI_WARPS][(MI_K_FIRST ? 16 : 64) * ROW];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  MI_S* tile = tiles[warp];
  for (i64 n = (i64)blockIdx.x * MI_WARPS + warp; n < (i64)strips * sixteens; n += (i64)gridDim.x * MI_WARPS) {
    int sixteen = (int)(n / strips), strip = (int)(n - (i64)sixteen * strips);
    __align__(16) u32 words[4];
    *reinterpret_cast<uint4*>(words) = reinterpret_cast<const uint4*>(weights)[((i64)strip * sixteens + sixteen) * 32 + lane];
    i64 about = ((i64)strip * groups + sixteen * 16 / group) * 64 + 8 * g;
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        float scale = widen(scales[about + 2 * j + r]), zero = MI_ZEROS ? widen(zeros[about + 2 * j + r]) - MI_BASE : MI_MIDDLE;
#pragma unroll
        for (int i = 0; i < 4; i++) {
          int of_k = 4 * t + i, feature = 16 * j + 8 * r + g;  // number i: pair i / 2, half i % 2
          int nibble = words[j] >> 16 * (i % 2) + 8 * (i / 2) + 4 * r & 15;
          tile[MI_K_FIRST ? of_k * ROW + feature : feature * ROW + of_k] = narrow<MI_S>((nibble - zero) * scale);
        }
      }
    }
    __syncwarp();
    const int across = MI_K_FIRST ? 64 : 16;
    for (int i = lane * MI_PACK; i < 1024; i += 32 * MI_PACK) {
      int row = i / across, column = i - row * across;
      int feature = strip * 64 + (MI_K_FIRST ? column : row), of_k = sixteen * 16 + (MI_K_FIRST ? row : column);
      if (feature < features && of_k < k) {
        MI_S* to = d + (MI_K_FIRST ? (i64)of_k * features + feature : (i64)feature * k + of_k);
        store_pack<MI_S, MI_PACK>(to, load_pack<MI_S, MI_PACK>(tile + row * ROW + column));
      }
    }
    __syncwarp();
  }
}
