// Bulk copies: boxes of a tensor by its map, plain pieces, between blocks of a cluster; when they arrive is the schedule's affair.
namespace emulation {
namespace {
// Where a byte of a box lies that is swizzled: pieces of 16 bytes change places within a line by the number of the line.
uint32_t swizzled(uint32_t address, unsigned swizzle) {
  unsigned pieces = swizzle / 16;
  return pieces ? address ^ ((address >> 7) & (pieces - 1)) << 4 : address;
}

struct Box {
  TensorMap map;
  int64_t at[5];
  unsigned taken[5], nbytes;
};

// A float of 10 bits of mantissa, rounded to nearest, ties away from zero.
uint32_t to_tf32(uint32_t bits) { return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000; }

Box box_of(const void* map, const int* at, unsigned rank) {
  Box box;
  std::memcpy(&box.map, map, sizeof box.map);
  const TensorMap& m = box.map;
  if (m.rank != rank || m.pixels) fail("a copy of %u dimensions by a map of %u%s", rank, m.rank, m.pixels ? ", of pixels" : "");
  end_if_faulty();
  box.nbytes = m.element_nbytes;
  for (unsigned d = 0; d < 5; d++) {
    box.at[d] = d < rank ? at[d] : 0;
    box.taken[d] = d < rank ? (m.box[d] + m.steps[d] - 1) / m.steps[d] : 1;
    box.nbytes *= box.taken[d];
  }
  if (at[0] * m.element_nbytes % 16) fail("a copy begins at element %d, which is no multiple of 16 bytes", at[0]);
  if (m.swizzle && box.taken[0] * m.element_nbytes != m.swizzle) fail("a swizzle of %u bytes over rows of others", m.swizzle);
  end_if_faulty();
  return box;
}

// Each element of a box: its address in the tensor, null outside, and where it lies in shared memory behind the box's start.
template <class Use> void walk(const Box& box, uint64_t innermost, Use&& use) {
  const TensorMap& m = box.map;
  uint32_t offset = 0;
  unsigned i[5] = {};
  for (i[4] = 0; i[4] < box.taken[4]; i[4]++) for (i[3] = 0; i[3] < box.taken[3]; i[3]++) for (i[2] = 0; i[2] < box.taken[2]; i[2]++)
    for (i[1] = 0; i[1] < box.taken[1]; i[1]++) for (i[0] = 0; i[0] < box.taken[0]; i[0]++) {
      bool inside = true;
      int64_t behind = 0;
      for (unsigned d = 0; d < m.rank; d++) {
        int64_t place = box.at[d] + (int64_t)i[d] * m.steps[d];
        inside &= place >= 0 && place < (int64_t)(d ? m.dims[d] : innermost);
        behind += place * (int64_t)(d ? m.strides[d - 1] : m.element_nbytes);
      }
      use(inside ? (unsigned char*)m.address + behind : nullptr, offset);
      offset += m.element_nbytes;
    }
}

// NaN of the map's element, or zeros, as the bytes of one.
uint64_t outside_of(const TensorMap& m) {
  return !m.nan_outside ? 0 : m.element_nbytes == 2 ? 0x7fff : m.element_nbytes == 4 ? 0x7fffffff : 0x7fffffffffffffff;
}

// What ``visit`` walks over, into shared memory: it calls what it is given with each element's address, or null, and its offset.
template <class Visit> void put(const TensorMap& m, unsigned nbytes, unsigned block, uint32_t to, Visit&& visit) {
  unsigned char* memory = memory_at(block, to, nbytes, "a copy of a box");
  if (!memory) return;
  uint32_t start = to & ((1u << RANK) - 1);
  uint64_t outside = outside_of(m);
  visit([&](const unsigned char* from, uint32_t offset) {
    unsigned char* place = memory + (int64_t)swizzled(start + offset, m.swizzle) - start;
    std::memcpy(place, from ? from : (const unsigned char*)&outside, m.element_nbytes);
    if (m.element != TF32_ELEMENT) return;
    uint32_t bits;
    std::memcpy(&bits, place, 4);
    bits = to_tf32(bits);
    std::memcpy(place, &bits, 4);
  });
}

// Each element of the pixels of an im2col map from the place of a filter's corner on, read so far ``beside`` it.
template <class Use> void walk_columns(const TensorMap& m, const int* at, const int* beside, Use&& use) {
  unsigned axes = m.rank - 2;
  int64_t corner[5];
  std::copy(at, at + m.rank, corner);
  for (unsigned pixel = 0; pixel < m.pixels; pixel++) {
    bool inside = corner[m.rank - 1] >= 0 && corner[m.rank - 1] < (int64_t)m.dims[m.rank - 1];
    int64_t behind = corner[m.rank - 1] * (int64_t)m.strides[m.rank - 2];
    for (unsigned d = 1; d <= axes; d++) {
      int64_t place = corner[d] + beside[d - 1];
      inside &= place >= 0 && place < (int64_t)m.dims[d];
      behind += place * (int64_t)m.strides[d - 1];
    }
    for (unsigned i = 0; i < m.channels; i++) {
      int64_t channel = corner[0] + i;
      bool there = inside && channel >= 0 && channel < (int64_t)m.dims[0];
      use(there ? (unsigned char*)m.address + behind + channel * m.element_nbytes : nullptr,
          (pixel * m.channels + i) * m.element_nbytes);
    }
    unsigned d = 1;
    for (; d <= axes; d++) {  // the corner's next place, within the bounds of the map
      corner[d] += m.steps[d];
      if (corner[d] < (int64_t)m.dims[d] + m.upper[d - 1]) break;
      corner[d] = m.lower[d - 1];
    }
    if (d > axes) corner[d]++;
  }
}

void get_box(const Box& box, unsigned block, uint32_t from) {
  unsigned char* memory = memory_at(block, from, box.nbytes, "a copy of a box out of shared memory");
  if (!memory) return;
  // As an H200 does: rows end at a multiple of 16 bytes, wherever their last element ends.
  uint64_t whole = 16 / box.map.element_nbytes;
  walk(box, (box.map.dims[0] + whole - 1) / whole * whole, [&](unsigned char* to, uint32_t offset) {
    if (to) std::memcpy(to, memory + (int64_t)swizzled(from + offset, box.map.swizzle) - from, box.map.element_nbytes);
  });
}

void send(std::function<void()> perform) {
  if (happens_now()) perform();
  else team->pending.push_back(std::move(perform));
  end_if_faulty();
}

void expect_whole(uint32_t to, uint64_t other, unsigned nbytes, const char* what) {
  if (to % 16 || other % 16 || nbytes % 16 || !nbytes) fail("%s: %u bytes, not from and to multiples of 16", what, nbytes);
  end_if_faulty();
}
}  // namespace

namespace {
// To each block of the cluster whose bit is set in ``blocks``, at the same address; to this one alone where it is 0.
template <class Put> void send_to(unsigned blocks, uint32_t to, uint32_t barrier, unsigned nbytes, Put put_into) {
  unsigned own = me().block;
  if (to % 128) fail("a copy of a box to %u, which is no multiple of 128", to);
  if (blocks >> team->count) fail("a copy of a box to blocks that the cluster has not: %x", blocks);
  end_if_faulty();
  for (unsigned b = 0; b < team->count; b++) {
    if (blocks ? !(blocks >> b & 1) : b != own) continue;
    send([=] {
      put_into(b);
      complete(b, barrier, nbytes);
    });
  }
}
}  // namespace

void load_box(uint32_t to, const void* map, uint32_t barrier, const int* at, unsigned rank, unsigned blocks) {
  Box box = box_of(map, at, rank);
  send_to(blocks, to, barrier, box.nbytes, [=](unsigned block) {
    put(box.map, box.nbytes, block, to, [&](auto&& use) { walk(box, box.map.dims[0], use); });
  });
}

void load_columns(
    uint32_t to, const void* map, uint32_t barrier, const int* at, const int* beside, unsigned rank, unsigned blocks) {
  TensorMap m;
  std::memcpy(&m, map, sizeof m);
  if (m.rank != rank || !m.pixels) fail("a copy of pixels of %u dimensions by a map of %u%s", rank, m.rank, m.pixels ? "" : ", of boxes");
  if (at[0] * m.element_nbytes % 16) fail("a copy begins at channel %d, which is no multiple of 16 bytes", at[0]);
  if (m.swizzle && m.channels * m.element_nbytes != m.swizzle) fail("a swizzle of %u bytes over rows of others", m.swizzle);
  for (unsigned d = 1; d + 1 < rank; d++) {
    if (at[d] < m.lower[d - 1] || at[d] >= (int64_t)m.dims[d] + m.upper[d - 1]) fail("a corner at %d, beyond the map's bounds", at[d]);
    if (beside[d - 1] < 0 || beside[d - 1] > 255) fail("pixels %d beside a corner", beside[d - 1]);
  }
  end_if_faulty();
  std::vector<int> corner(at, at + rank), offsets(beside, beside + rank - 2);
  unsigned nbytes = m.pixels * m.channels * m.element_nbytes;
  send_to(blocks, to, barrier, nbytes, [=](unsigned block) {
    put(m, nbytes, block, to, [&](auto&& use) { walk_columns(m, corner.data(), offsets.data(), use); });
  });
}

void store_box(uint32_t from, const void* map, const int* at, unsigned rank) {
  Box box = box_of(map, at, rank);
  for (unsigned d = 0; d < rank; d++)
    if (at[d] < 0) fail("a copy out of shared memory to before its tensor: from %d on in dimension %u", at[d], d);
  if (from % 128) fail("a copy of a box from %u, which is no multiple of 128", from);
  end_if_faulty();
  unsigned own = me().block;
  me().stores.push_back([=] { get_box(box, own, from); });
}

void copy_in(uint32_t to, const void* from, unsigned nbytes, uint32_t barrier) {
  expect_whole(to, (uint64_t)from, nbytes, "a copy into shared memory");
  unsigned own = me().block;
  send([=] {
    unsigned char* memory = memory_at(own, to, nbytes, "a copy into shared memory");
    if (!memory) return;
    std::memcpy(memory, from, nbytes);
    complete(own, barrier, nbytes);
  });
}

void copy_to_block(uint32_t to, uint32_t from, unsigned nbytes, uint32_t barrier) {
  expect_whole(to, from, nbytes, "a copy to another block");
  unsigned own = me().block;
  send([=] {
    unsigned char* source = memory_at(own, from, nbytes, "a copy from this block");
    unsigned char* target = memory_at(own, to, nbytes, "a copy to another block");
    if (!source || !target) return;
    std::memcpy(target, source, nbytes);
    complete(own, barrier, nbytes);
  });
}

void store_async(uint32_t to, const void* words, unsigned nbytes, uint32_t barrier) {
  std::vector<unsigned char> bytes((const unsigned char*)words, (const unsigned char*)words + nbytes);
  unsigned own = me().block;
  if (to % nbytes) fail("a store of %u bytes at %u", nbytes, to);
  if (to >> RANK != barrier >> RANK) fail("a store to one block, and a barrier of another");
  end_if_faulty();
  send([=] {
    unsigned char* memory = memory_at(own, to, nbytes, "a store to another block");
    if (!memory) return;
    std::memcpy(memory, bytes.data(), nbytes);
    complete(own, barrier, nbytes);
  });
}

void close_stores() {
  Fiber& f = me();
  if (happens_now()) {
    for (auto& perform : f.stores) perform();
    f.stores.clear();
  }
  f.groups.push_back(std::move(f.stores));
  f.stores.clear();
  end_if_faulty();
}

// Until at most ``open`` groups of this thread are under way.
void await_stores(unsigned open) {
  Fiber& f = me();
  while (f.groups.size() > open) {
    for (auto& perform : f.groups.front()) perform();
    f.groups.erase(f.groups.begin());
  }
  end_if_faulty();
}
}  // namespace emulation
