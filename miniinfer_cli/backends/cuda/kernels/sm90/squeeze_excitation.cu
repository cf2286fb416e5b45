// All of squeeze-and-excitation in one launch: y = x gate(MI_ACTIVATION(mean of x's pixels squeeze + bias) excite + bias).
//
// Images are [pixels, channels], channels last; weights [squeezed, channels] both, and constant. A cluster has an image, each of its
// blocks some pixels of some channels, which stay in shared memory from the first time they are read to when they are multiplied. What
// a block squeezes is a sum over its own pixels and channels alone, so blocks tell each other nothing but as many sums as there are
// squeezed values, once; each adds them up in the same order. Weights are loaded before the kernel's turn.
//
// MI_T is the type, MI_PACK its elements in 16 bytes; MI_ACTIVATION and MI_GATE are functions of `epilogue` and `gate`; MI_PARTS blocks
// are a cluster, MI_ACROSS of them beside each other along the channels. A block has MI_THREADS threads.
#include "epilogue.cuh"
#include "gates.cuh"
#include "packs.cuh"
#include "sm90/copies.cuh"
#include "sm90/turns.cuh"

typedef several<MI_T, MI_PACK> pack_t;
constexpr int AHEAD = 4;  // packs of a thread that come at one time

struct __align__(16) Numbers { float d[MI_PACK]; };

// ``packs``: of an image's channels; a block has up to ``own_pixels`` and ``own_packs``. ``rows``: squeezed values, filled up to fours.
extern "C" __global__ void __launch_bounds__(MI_THREADS) squeeze_excitation(
    const MI_T* x, const MI_T* squeeze, const MI_T* excite, const MI_T* squeeze_bias, const MI_T* excite_bias, MI_T* y, int pixels,
    int packs, int squeezed, int rows, int own_pixels, int own_packs, float alpha, float beta) {
  MI_TILES(room);
  int thread = (int)threadIdx.x, warp = thread / 32, lane = thread % 32, rank = (int)cluster_rank();
  int pack0 = rank % MI_ACROSS * own_packs, pixel0 = rank / MI_ACROSS * own_pixels;
  int mine = packs - pack0 < own_packs ? packs - pack0 : own_packs, width = mine * MI_PACK;
  int left = pixels - pixel0, count = left < 0 ? 0 : left < own_pixels ? left : own_pixels;

  pack_t* held = reinterpret_cast<pack_t*>(room);
  pack_t* squeezing = held + own_pixels * own_packs;
  pack_t* exciting = squeezing + squeezed * own_packs;
  float* totals = reinterpret_cast<float*>(exciting + squeezed * own_packs);  // of each thread, and whatever is summed up
  float* means = totals + MI_THREADS * MI_PACK;  // sums of this block's pixels, then gates
  float* hidden = means + own_packs * MI_PACK;
  float* sent = hidden + rows;
  float* parts = sent + rows;  // of each block of the cluster
  u32 arrived = shared_address(parts + MI_PARTS * rows);

  if (thread == 0) {
    make_barrier(arrived, 1);
    fence_barriers();
    arrive_expecting(arrived, MI_PARTS * rows * 4);
    let_next_begin();
  }
  __syncthreads();
  come_to_cluster();
  for (int i = thread; i < squeezed * mine; i += MI_THREADS) {
    int row = i / mine;
    long long from = ((long long)row * packs + pack0 + i - row * mine) * MI_PACK;
    squeezing[i] = load_pack<MI_T, MI_PACK>(squeeze + from);
    exciting[i] = load_pack<MI_T, MI_PACK>(excite + from);
  }
  await_turn();

  // A thread has one pack of every ``lanes``-th pixel.
  int lanes = MI_THREADS / mine, pixel = thread / mine, pack = thread - pixel * mine;
  int until = pixel < lanes ? count : 0;
  long long at = ((long long)blockIdx.y * pixels + pixel0) * packs + pack0 + pack;
  float sums[MI_PACK] = {};
  for (int i = pixel; i < until; i += AHEAD * lanes) {
    pack_t found[AHEAD] = {};
#pragma unroll
    for (int a = 0; a < AHEAD; a++)
      if (i + a * lanes < until) found[a] = load_pack<MI_T, MI_PACK>(x + (at + (long long)(i + a * lanes) * packs) * MI_PACK);
#pragma unroll
    for (int a = 0; a < AHEAD; a++) {
      if (i + a * lanes < until) held[(i + a * lanes) * mine + pack] = found[a];
#pragma unroll
      for (int e = 0; e < MI_PACK; e++) sums[e] += widen(found[a].d[e]);
    }
  }
  Numbers numbers;
#pragma unroll
  for (int e = 0; e < MI_PACK; e++) numbers.d[e] = sums[e];
  *reinterpret_cast<Numbers*>(totals + thread * MI_PACK) = numbers;
  __syncthreads();
  // Every channel's of all lanes: by as many threads for each as there are, then by one.
  int helpers = MI_THREADS / width, helper = thread / width, channel = thread - helper * width;
  float total = 0;
  for (int i = helper; helper < helpers && i < lanes; i += helpers) total += totals[i * width + channel];
  __syncthreads();
  totals[thread] = total;
  __syncthreads();
  if (helper == 0) {
    for (int i = 1; i < helpers; i++) total += totals[i * width + channel];
    means[channel] = total;
  }
  __syncthreads();

  for (int row = warp; row < rows; row += MI_THREADS / 32) {
    float sum = 0;
    for (int p = lane; p < mine && row < squeezed; p += 32) {
      pack_t weights = squeezing[row * mine + p];
#pragma unroll
      for (int e = 0; e < MI_PACK; e++) sum += widen(weights.d[e]) * means[p * MI_PACK + e];
    }
#pragma unroll
    for (int by = 16; by; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (lane == 0) sent[row] = sum;
  }
  __syncthreads();
  await_cluster();
  for (int i = thread; i < MI_PARTS * (rows / 4); i += MI_THREADS) {
    int to = i / (rows / 4), four = (i - to * (rows / 4)) * 4;
    float4 words = make_float4(sent[four], sent[four + 1], sent[four + 2], sent[four + 3]);
    send_to_block(address_in_block(shared_address(parts + rank * rows + four), to), words, address_in_block(arrived, to));
  }
  await_in_cluster(arrived, 0);
  if (thread < squeezed) {
    float sum = 0;
#pragma unroll
    for (int part = 0; part < MI_PARTS; part++) sum += parts[part * rows + thread];
    float bias = squeeze_bias ? (float)widen(squeeze_bias[thread]) : 0.0f;
    hidden[thread] = epilogue::MI_ACTIVATION(sum / (float)pixels + bias);
  }
  __syncthreads();
  const MI_T* rows_of = reinterpret_cast<const MI_T*>(exciting);
  total = 0;
  for (int i = helper; helper < helpers && i < squeezed; i += helpers) total += hidden[i] * widen(rows_of[i * width + channel]);
  totals[thread] = total;
  __syncthreads();
  if (helper == 0) {
    for (int i = 1; i < helpers; i++) total += totals[i * width + channel];
    float bias = excite_bias ? (float)widen(excite_bias[pack0 * MI_PACK + channel]) : 0.0f;
    means[channel] = gate::MI_GATE(total + bias, alpha, beta);
  }
  __syncthreads();
  if (pixel >= lanes) return;
  numbers = *reinterpret_cast<const Numbers*>(means + pack * MI_PACK);
#pragma unroll 4
  for (int i = pixel; i < until; i += lanes) {
    pack_t given = held[i * mine + pack], scaled;
#pragma unroll
    for (int e = 0; e < MI_PACK; e++) scaled.d[e] = narrow<MI_T>(widen(given.d[e]) * numbers.d[e]);
    store_pack<MI_T, MI_PACK>(y + (at + (long long)i * packs) * MI_PACK, scaled);
  }
}
