// y[token][feature] = ended(scales[feature] * sum over k of tokens[token][k] weights[feature][k] + biases[feature]) of bytes, for many
// tokens; ended() is what integer_ending.cuh does to a scaled sum and an element of a residual.
//
// Blocks stay and go from tile to tile, of 128 tokens x MI_FEATURES features. Two warpgroups multiply 64 tokens each and finish them
// where they are, in registers; one warp loads, through a ring of MI_STAGES chunks of 128 bytes of k. The second warpgroup begins
// later by what the ring holds, so that one multiplies while the other finishes. The features of the weights lie in such an order
// that a thread has 16 neighbours of a token (byte_product_sm90.py), which come and go as vectors.
//
// A cluster is MI_SHARING blocks, one below the other; each loads a part of the weights for all of them. Tiles are taken in bands of
// ``band`` clusters along the tokens.
//
// MI_T: i8, u8 or f8e4m3fn; MI_W: of the weights, f8e4m3fn as well or i8; MI_BYTES: 1 where sums are whole numbers, 2 where they have
// few digits and are added to floats every MI_TOGETHER chunks. MI_STEPS: of 32 bytes of a chunk, the others are zeros. MI_ADDS: 1 where
// there is a residual, of type MI_R; MI_AHEAD: 1 where it is loaded a tile ahead, for which there are registers. MI_VECTORS: 1 where all
// rows are whole vectors of 16 elements. MI_WINDOWS: 1 where tokens are the windows of a convolution (windows.cuh). MI_QUICK: 1 where
// activations may be as exact as halves are. MI_MULTIPLYING, MI_LOADING: registers of a thread.
#if MI_QUICK
#include "quick.cuh"  // in front of what uses its functions
#endif
#include "integer_ending.cuh"
#include "sm90/copies.cuh"
#include "sm90/pieces.cuh"
#include "sm90/turns.cuh"
#include "sm90/wgmma.cuh"
#include "sm90/windows.cuh"

#define MI_ROW_NBYTES 128
#define MI_ROWS 64   // tokens of a warpgroup
#define MI_GROUPS 2  // warpgroups that multiply
#define MI_BESIDE 16  // features side by side that a thread has

constexpr int TOKENS = MI_ROWS * MI_GROUPS, THREADS = 128 * (MI_GROUPS + 1);
constexpr u32 TOKENS_NBYTES = TOKENS * MI_ROW_NBYTES, WEIGHTS_NBYTES = MI_FEATURES * MI_ROW_NBYTES;
constexpr u32 STAGE_NBYTES = TOKENS_NBYTES + WEIGHTS_NBYTES, PART_NBYTES = WEIGHTS_NBYTES / MI_SHARING;
constexpr u32 AT_BARRIERS = MI_STAGES * STAGE_NBYTES;
constexpr int BANDS = MI_FEATURES / 64;  // of 64 features
constexpr bool AHEAD = MI_AHEAD != 0;  // the residual of a tile is loaded while the tile before is finished
constexpr int EARLY = AHEAD ? BANDS : 1;
static_assert(MI_FEATURES % 64 == 0 && MI_FEATURES / MI_SHARING % 8 == 0, "whole patterns for warpgroups and for blocks");

#if MI_BYTES == 1
typedef int Sum;
#else
typedef float Sum;
#endif

// An element of a residual as a float. Bytes become the low digits of 2^23: a conversion waits for the unit that all warps share.
#ifdef MI_EMULATED
MI_DEVICE float byte_behind(u32 word, int i) { return __int_as_float(0x4b000000 | (word >> 8 * i & 255)); }
#else
MI_DEVICE float byte_behind(u32 word, int i) { return __int_as_float((int)__byte_perm(word, 0x4b000000u, 0x7440 + i)); }
#endif
// Neighbours of a residual in words: as an array of bytes the compiler would move them one by one.
struct __align__(16) Added { u32 words[MI_BESIDE * sizeof(MI_R) / 4]; };
template <class T> struct Element {
  static MI_DEVICE float of(const u32* words, int i) {
    u32 word = words[i * (int)sizeof(T) / 4] >> 8 * (i * (int)sizeof(T) % 4);
    return widen(*reinterpret_cast<const T*>(&word));
  }
};
template <> struct Element<u8> {
  static MI_DEVICE float of(const u32* words, int i) { return byte_behind(words[i / 4], i % 4) - 8388608.0f; }
};
template <> struct Element<i8> {
  static MI_DEVICE float of(const u32* words, int i) { return byte_behind(words[i / 4] ^ 0x80808080u, i % 4) - 8388736.0f; }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1) byte_product(
    const __grid_constant__ TensorMap tokens, const __grid_constant__ TensorMap weights, MI_Y* y, const float* scales,
    const float* biases, const MI_R* residual, long long ldy, long long ldr, int features, int count, int chunks, int down,
    int across, int band,
#if MI_WINDOWS
    Windows w,
#endif
    Ending ending) {
  MI_TILES(room);
  u32 base = shared_address(room), loaded = base + AT_BARRIERS, free = loaded + 8 * MI_STAGES;
  int me = MI_SHARING > 1 ? (int)cluster_rank() : 0;
  int first = (int)blockIdx.x / MI_SHARING, step = (int)gridDim.x / MI_SHARING, tiles = down * across;
  int thread = (int)threadIdx.x, group = thread / 128, warp = thread / 32 % 4, lane = thread % 32;
  bool loads = thread / 32 == 4 * MI_GROUPS;
  if (loads && lane == 0) {
    fetch_map(tokens);
    fetch_map(weights);
    for (int i = 0; i < MI_STAGES; i++) {
      make_barrier(loaded + 8 * i, 1);
      make_barrier(free + 8 * i, 4 * MI_GROUPS * MI_SHARING);
    }
    fence_barriers();
    let_next_begin();
  }
  __syncthreads();
  if (MI_SHARING > 1) {
    come_to_cluster();
    await_cluster();
  }
  if (!loads) await_turn();

  // The first token and the first feature of this block in a tile of its cluster.
  auto find = [&](int at, int& token, int& feature) {
    int bands = at / (band * across), left = at - bands * band * across;
    int height = down - bands * band < band ? down - bands * band : band;
    int column = left / height, row = bands * band + left - column * height;
    token = (row * MI_SHARING + me) * TOKENS;
    feature = column * MI_FEATURES;
  };

  auto load = [&]() {
    int token, feature;
    auto load_part = [&](int stage, int channel, int tap) {
      u32 barrier = loaded + 8 * stage, to = base + stage * STAGE_NBYTES + TOKENS_NBYTES + me * PART_NBYTES;
      arrive_expecting(barrier, STAGE_NBYTES);
      load_weights<MI_SHARING>(to, weights, barrier, channel, tap, feature + me * (MI_FEATURES / MI_SHARING));
    };
#if MI_WINDOWS
    int parts = w.chunks;  // of a tap
#else
    int parts = chunks;
#endif
    int early = 0, stage = 0;  // chunks whose weights are loaded before the turn
    if (lane == 0) {
      find(first, token, feature);
      for (; early < MI_STAGES && early < chunks; early++) load_part(early, early % parts * MI_ROW_NBYTES, early / parts);
    }
    await_turn();
    u32 phase = 1;
    for (int at = first; lane == 0 && at < tiles; at += step) {
      find(at, token, feature);
      int k = 0, tap = 0;
#if MI_WINDOWS
      Corner corner(w, token < count ? token : 0);  // one behind all images is nowhere
      int across = 0, down = 0;
#endif
      for (int chunk = 0; chunk < chunks; chunk++, early--) {
        if (early <= 0) {
          await(free + 8 * stage, phase);
          load_part(stage, k, tap);
        }
        u32 to = base + stage * STAGE_NBYTES;
#if MI_WINDOWS
        int beside = across * w.spread[0], below = down * w.spread[1];
        load_columns(to, tokens, loaded + 8 * stage, k, corner.x, corner.y, corner.image, beside, below);
#else
        load_box(to, tokens, loaded + 8 * stage, k, token);
#endif
        k += MI_ROW_NBYTES;
#if MI_WINDOWS
        if (k == parts * MI_ROW_NBYTES) {
          k = 0;
          tap++;
          if (++across == w.across) across = 0, down++;
        }
#endif
        if (++stage == MI_STAGES) stage = 0, phase ^= 1;
      }
    }
  };

  if (group < MI_GROUPS) {
    if constexpr (MI_MULTIPLYING > 0) take_registers<MI_MULTIPLYING>();
    int stage = 0, token, feature;
    u32 phase = 0;
    auto give_back = [&](int which) {
      __syncwarp();  // all its lanes have seen that it was loaded
      if (lane >= MI_SHARING) return;
      if (MI_SHARING > 1) give_back_in_cluster(address_in_block(free + 8 * which, lane));
      else arrive(free + 8 * which);
    };
    Sum sums[MI_FEATURES / 2];
#pragma unroll
    for (int i = 0; i < MI_FEATURES / 2; i++) sums[i] = 0;
    hold(sums);
#if MI_BYTES == 2
    float part[MI_FEATURES / 2];
#pragma unroll
    for (int i = 0; i < MI_FEATURES / 2; i++) part[i] = 0;
    hold(part);
#endif
    int lead = chunks < MI_STAGES ? chunks : MI_STAGES - 1;  // chunks by which the first warpgroup is ahead
    if (group > 0) meet(1, 128 * MI_GROUPS);
    find(first, token, feature);
    int row0 = token + group * MI_ROWS + warp * 16 + lane / 4, column0 = feature + lane % 4 * MI_BESIDE;
    Added added[EARLY][2], next[EARLY][2];
    auto load_added = [&](Added& to, long long row, int column) {
      if (MI_VECTORS) {
        if (row < count && column < features) move<sizeof(Added)>(&to, residual + row * ldr + column);
      } else {
#pragma unroll
        for (int i = 0; i < MI_BESIDE; i++)
          if (row < count && column + i < features) reinterpret_cast<MI_R*>(&to)[i] = residual[row * ldr + column + i];
      }
    };
    auto load_all = [&](Added(&to)[EARLY][2]) {
#pragma unroll
      for (int q = 0; q < BANDS; q++)
#pragma unroll
        for (int h = 0; h < 2; h++) load_added(to[AHEAD ? q : 0][h], row0 + 8 * h, column0 + 64 * q);
    };
    if (AHEAD) load_all(next);
    auto multiply_chunks = [&](Sum(&d)[MI_FEATURES / 2], int begin, int end, int at) {
      for (int chunk = begin; chunk < end; chunk++) {
        await(loaded + 8 * stage, phase);
        fence_sums();
        u32 here = base + stage * STAGE_NBYTES;
        u64 left = tile<128>(here + group * MI_ROWS * MI_ROW_NBYTES, 16, 8 * MI_ROW_NBYTES);
        u64 right = tile<128>(here + TOKENS_NBYTES, 16, 8 * MI_ROW_NBYTES);
#pragma unroll
        for (int i = 0; i < MI_STEPS; i++) {
#if MI_BYTES == 2
          multiply<MI_T>(d, left + 2 * i, right + 2 * i, chunk > begin || i > 0);
#else
          multiply<MI_T, MI_W>(d, left + 2 * i, right + 2 * i, chunk > begin || i > 0);
#endif
        }
        close_products();
        if (chunk > begin) {
          await_products<1>();
          give_back(stage ? stage - 1 : MI_STAGES - 1);
        }
        if (group == 0 && at == first && chunk == lead - 1) come_to(1, 128 * MI_GROUPS);
        if (++stage == MI_STAGES) stage = 0, phase ^= 1;
      }
      await_products<0>();
      hold(d);
      give_back(stage ? stage - 1 : MI_STAGES - 1);
    };
    for (int at = first; at < tiles; at += step) {
#if MI_BYTES == 2
      for (int begun = 0; begun < chunks; begun += MI_TOGETHER) {
        multiply_chunks(part, begun, begun + MI_TOGETHER < chunks ? begun + MI_TOGETHER : chunks, at);
#pragma unroll
        for (int i = 0; i < MI_FEATURES / 2; i++) sums[i] = begun > 0 ? sums[i] + part[i] : part[i];
      }
#else
      multiply_chunks(sums, 0, chunks, at);
#endif
      int here_row = row0, here_column = column0;
      if (AHEAD) {
#pragma unroll
        for (int q = 0; q < EARLY; q++)
#pragma unroll
          for (int h = 0; h < 2; h++) added[q][h] = next[q][h];
      }
      if (at + step < tiles) {
        find(at + step, token, feature);
        row0 = token + group * MI_ROWS + warp * 16 + lane / 4, column0 = feature + lane % 4 * MI_BESIDE;
        if (AHEAD) load_all(next);
      }
#pragma unroll
      for (int q = 0; q < BANDS; q++) {
        int column = here_column + 64 * q;
        if (column >= features) continue;
        Few<float, MI_BESIDE> scale, bias;
        if (MI_VECTORS) {
          scale = neighbours<float, MI_BESIDE>(scales + column);
          bias = neighbours<float, MI_BESIDE>(biases + column);
        } else {
#pragma unroll
          for (int i = 0; i < MI_BESIDE; i++) {
            bool there = column + i < features;
            scale.d[i] = there ? scales[column + i] : 0.0f;
            bias.d[i] = there ? biases[column + i] : 0.0f;
          }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
          long long row = here_row + 8 * h;
          if (row >= count) continue;
          if (MI_ADDS && !AHEAD) load_added(added[0][h], row, column);
          __align__(16) Few<MI_Y, MI_BESIDE> made;
#pragma unroll
          for (int i = 0; i < MI_BESIDE; i++) {
            float sum = __fmaf_rn((float)sums[4 * (8 * q + i / 2) + 2 * h + i % 2], scale.d[i], bias.d[i]);
            made.d[i] = ended(sum, MI_ADDS ? Element<MI_R>::of(added[AHEAD ? q : 0][h].words, i) : ending.residual_zero, ending);
          }
          MI_Y* to = y + row * ldy + column;
          if (MI_VECTORS) {
            move<sizeof(MI_Y) * MI_BESIDE>(to, &made);
          } else {
#pragma unroll
            for (int i = 0; i < MI_BESIDE; i++)
              if (column + i < features) to[i] = made.d[i];
          }
        }
      }
    }
  } else {
    if constexpr (MI_LOADING > 0) give_registers<MI_LOADING>();
    if (loads) load();
  }
  __syncwarp();
  // Nobody ends while others of the cluster still load into its memory or tell it what is free.
  if (MI_SHARING > 1) {
    come_to_cluster();
    await_cluster();
  }
}
