// Depthwise convolutions of images with two axes, channels last: a block makes MI_DOWN x MI_ACROSS outputs of MI_PACKS vectors of
// channels, out of a tile that one copy brings into shared memory, with zeros beyond the image; blocks beside each other hide the wait.
//
// MI_T: f16 or bf16. Weights are [taps, channels] and constant: they are loaded before the kernel's turn. MI_KERNEL taps and MI_STRIDE
// steps along both axes. A thread makes MI_ROWS x MI_WIDTH outputs of a vector. MI_BEFORE: the activation of what is read, of which
// that of zero is zero, rounded as its own kernel would, where MI_ACTIVATES is 1; MI_ACTIVATION: that of the sums.
#include "quick.cuh"
#include "epilogue.cuh"
#include "packs.cuh"
#include "sm90/copies.cuh"
#include "sm90/turns.cuh"

typedef several<MI_T, 8> pack_t;
constexpr int TAPS = MI_KERNEL * MI_KERNEL, READ_DOWN = (MI_DOWN - 1) * MI_STRIDE + MI_KERNEL;
constexpr int READ_ACROSS = (MI_ACROSS - 1) * MI_STRIDE + MI_KERNEL, TILE = READ_DOWN * READ_ACROSS * MI_PACKS;
constexpr int COLUMNS = (MI_WIDTH - 1) * MI_STRIDE + MI_KERNEL, ROWS = (MI_ROWS - 1) * MI_STRIDE + MI_KERNEL;
constexpr int BESIDE = MI_ACROSS / MI_WIDTH, TASKS = MI_DOWN / MI_ROWS * BESIDE * MI_PACKS;

// ``at``: pads in front, along the height and the width. blockIdx: a tile, vectors of channels, an image.
extern "C" __global__ void __launch_bounds__(MI_THREADS) depthwise_tiles(
    const __grid_constant__ TensorMap x, const MI_T* w, const MI_T* bias, MI_T* y, int channels, int height, int width, int tiles,
    int begin_down, int begin_across) {
  MI_TILES(room);
  u32 base = shared_address(room), loaded = base + (TILE + TAPS * MI_PACKS) * 16;
  const pack_t* tile = reinterpret_cast<const pack_t*>(room);
  pack_t* weights = reinterpret_cast<pack_t*>(room) + TILE;
  int thread = (int)threadIdx.x, down = (int)blockIdx.x / tiles, across = (int)blockIdx.x - down * tiles;
  int channel0 = (int)blockIdx.y * MI_PACKS * 8, image = (int)blockIdx.z, top = down * MI_DOWN, left = across * MI_ACROSS;
  if (thread == 0) {
    fetch_map(x);
    make_barrier(loaded, 1);
    fence_barriers();
    let_next_begin();
  }
  for (int i = thread; i < TAPS * MI_PACKS; i += MI_THREADS)
    weights[i] = load_pack<MI_T, 8>(w + (long long)(i / MI_PACKS) * channels + channel0 + i % MI_PACKS * 8);
  __syncthreads();
  await_turn();
  if (thread == 0) {
    arrive_expecting(loaded, TILE * 16);
    load_box(base, x, loaded, channel0, left * MI_STRIDE - begin_across, top * MI_STRIDE - begin_down, image);
  }
  await(loaded, 0);
  for (int task = thread; task < TASKS; task += MI_THREADS) {
    int strip = task / MI_PACKS, pack = task - strip * MI_PACKS, row0 = strip / BESIDE * MI_ROWS, column0 = strip % BESIDE * MI_WIDTH;
    const pack_t* from = tile + (row0 * MI_STRIDE * READ_ACROSS + column0 * MI_STRIDE) * MI_PACKS + pack;
    float total[MI_ROWS][MI_WIDTH][8] = {};
#pragma unroll
    for (int row = 0; row < ROWS; row++) {
      float values[COLUMNS][8];
#pragma unroll
      for (int column = 0; column < COLUMNS; column++) {
        pack_t held = from[(row * READ_ACROSS + column) * MI_PACKS];
#pragma unroll
        for (int k = 0; k < 8; k++) {
          values[column][k] = widen(held.d[k]);
#if MI_ACTIVATES
          values[column][k] = widen(narrow<MI_T>(epilogue::MI_BEFORE(values[column][k])));
#endif
        }
      }
#pragma unroll
      for (int r = 0; r < MI_ROWS; r++) {
        const int ky = row - r * MI_STRIDE;
        if (ky < 0 || ky >= MI_KERNEL) continue;
#pragma unroll
        for (int kx = 0; kx < MI_KERNEL; kx++) {
          pack_t by = weights[(ky * MI_KERNEL + kx) * MI_PACKS + pack];
#pragma unroll
          for (int k = 0; k < 8; k++) {
            float weight = widen(by.d[k]);
#pragma unroll
            for (int j = 0; j < MI_WIDTH; j++) total[r][j][k] += values[j * MI_STRIDE + kx][k] * weight;
          }
        }
      }
    }
    int channel = channel0 + pack * 8;
    pack_t added{};
    if (bias) added = load_pack<MI_T, 8>(bias + channel);
#pragma unroll
    for (int r = 0; r < MI_ROWS; r++) {
      int oh = top + row0 + r;
      if (oh >= height) break;
#pragma unroll
      for (int j = 0; j < MI_WIDTH; j++) {
        int ow = left + column0 + j;
        if (ow >= width) break;
        pack_t made;
#pragma unroll
        for (int k = 0; k < 8; k++) made.d[k] = narrow<MI_T>(epilogue::MI_ACTIVATION(total[r][j][k] + widen(added.d[k])));
        store_pack<MI_T, 8>(y + (((long long)image * height + oh) * width + ow) * channels + channel, made);
      }
    }
  }
}
