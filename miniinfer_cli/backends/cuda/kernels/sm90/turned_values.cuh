// Values of f32 turned in shared memory: of floats, matrix instructions take the second operand along keys alone.
//
// Before, boxes of 32 elements of a head have a row for each key; behind it, in the same place, boxes of 32 keys have a row for each
// of MI_VALUE elements. Rows are of 128 bytes, swizzled. Of each 8 keys those of even number come first, since a thread's scores of
// two neighbours are what it has of the first and of the second half of a matrix instruction's keys.
#pragma once
#include "sm90/barriers.cuh"
#include "types.cuh"

// By MEMBERS threads, of which this is number `member`; they meet at `barrier`, between what all read and what all write.
template <int KEYS, int VALUE, int MEMBERS> MI_DEVICE void turn_values(unsigned char* values, int member, int barrier) {
  static_assert(KEYS % 32 == 0 && VALUE % 8 == 0, "whole boxes of keys, whole patterns of elements");
  constexpr int BOXES = (VALUE + 31) / 32, SQUARES = BOXES * (KEYS / 32) * 64;  // of 4 keys by 4 elements
  constexpr int OWN = (SQUARES + MEMBERS - 1) / MEMBERS;
  Pack<f32, 4> kept[OWN][4];
  // Eight lanes have all chunks of a row, and such keys of each that neither reads nor writes meet in a bank.
#pragma unroll
  for (int n = 0; n < OWN; n++) {
    int i = member + n * MEMBERS, chunk = i % 8, keys = chunk / 2 ^ i / 8 % 8, from = i / 64 % BOXES, to = i / 64 / BOXES;
    if (SQUARES % MEMBERS && i >= SQUARES) continue;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int key = to * 32 + keys / 2 * 8 + 2 * e + keys % 2;
      kept[n][e] = *reinterpret_cast<const Pack<f32, 4>*>(values + (from * KEYS + key) * 128 + ((chunk ^ key % 8) << 4));
    }
  }
  meet(barrier, MEMBERS);
#pragma unroll
  for (int n = 0; n < OWN; n++) {
    int i = member + n * MEMBERS, chunk = i % 8, keys = chunk / 2 ^ i / 8 % 8, from = i / 64 % BOXES, to = i / 64 / BOXES;
    if (SQUARES % MEMBERS && i >= SQUARES) continue;
#pragma unroll
    for (int e = 0; e < 4; e++) {
      int element = from * 32 + chunk * 4 + e;
      if (VALUE % 32 && element >= VALUE) continue;
      Pack<f32, 4> turned = {kept[n][0].d[e], kept[n][1].d[e], kept[n][2].d[e], kept[n][3].d[e]};
      *reinterpret_cast<Pack<f32, 4>*>(values + (to * VALUE + element) * 128 + ((keys ^ element % 8) << 4)) = turned;
    }
  }
}
