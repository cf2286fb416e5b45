// Mean and M2 (the sum of squared distances from it) of 64 neighbours in a row, and how a row of such pieces is brought to one scale.
#pragma once
#include "packs.cuh"

constexpr int PIECE = 64;  // values

// By eight neighbouring lanes, each of which holds eight values of a piece, as they are stored; all lanes of the warp take part.
template <class T> MI_DEVICE float2 piece_statistics(const T (&v)[8]) {
  float sum = 0, squares = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) sum += widen(v[i]);
#pragma unroll
  for (int by = 4; by; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
  float mean = sum * (1.0f / PIECE);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    float far = widen(v[i]) - mean;
    squares += far * far;
  }
#pragma unroll
  for (int by = 4; by; by /= 2) squares += __shfl_xor_sync(0xffffffffu, squares, by);
  return make_float2(mean, squares);
}

// What is taken off the elements of a row, and what the rest is multiplied by: the mean and 1 / sqrt(variance + epsilon), or, not
// CENTRED, nothing and 1 / sqrt(mean of squares + epsilon). Pieces are merged by Chan's formula, never by sums of squares. Short code:
// what runs once in each block waits for its instructions.
template <int PIECES, bool CENTRED> MI_DEVICE float2 row_scale(const float2* pieces, float epsilon) {
  float mean = 0, squares = 0, between = 0;
  float2 piece[PIECES];
#pragma unroll
  for (int i = 0; i < PIECES; i++) piece[i] = pieces[i];
#pragma unroll
  for (int i = 0; i < PIECES; i++) mean += piece[i].x;
  mean *= 1.0f / PIECES;
#pragma unroll
  for (int i = 0; i < PIECES; i++) {
    float far = piece[i].x - mean;
    squares += piece[i].y;
    between += far * far;
  }
  float variance = (squares + PIECE * between) * (1.0f / (PIECES * PIECE));
  if (!CENTRED) variance += mean * mean;
  return make_float2(CENTRED ? mean : 0.0f, rsqrtf(variance + epsilon));
}
