// Which thread of a cluster goes on, and when what is on its way arrives; who is told that nobody can move.
namespace emulation {
namespace {
bool is_over(const Wait& wait);
const char* words_of(const Wait& wait, char (&room)[128]);

// A warp goes on when all its threads wait for it, or are done; a block likewise. True when one did.
bool release(unsigned first, unsigned end, State waiting) {
  bool any = false;
  for (unsigned i = first; i < end; i++) {
    if (team->fibers[i].state == waiting) any = true;
    else if (team->fibers[i].state != DONE) return false;
  }
  for (unsigned i = first; i < end; i++)
    if (team->fibers[i].state == waiting) team->fibers[i].state = READY;
  return any;
}

// Something that is on its way arrives: all of it, or at random one thing. False when nothing is.
bool let_arrive() {
  auto& pending = team->pending;
  if (pending.empty()) return false;
  if (seed > 1) {
    auto one = pending.begin() + roll(pending.size());
    auto perform = *one;
    pending.erase(one);
    perform();
  } else {
    auto all = std::move(pending);
    pending.clear();
    for (auto& perform : all) perform();
  }
  return true;
}

void tell_deadlock() {
  std::map<std::string, unsigned> counts;
  for (unsigned i = 0; i < team->size; i++) {
    const Fiber& f = team->fibers[i];
    char room[128];
    if (f.state == AT_BLOCK) counts["at __syncthreads"]++;
    if (f.state == AT_WARP) counts["for their warps"]++;
    if (f.state == WAITING) counts[words_of(f.wait, room)]++;
  }
  std::string all;
  for (auto& [words, count] : counts) all += (all.empty() ? "" : ", ") + std::to_string(count) + " " + words;
  fail("nobody can move; of the threads wait: %s", all.c_str());
}

void settle_cluster() {
  unsigned alive = 0;
  for (unsigned i = 0; i < team->size; i++) alive += team->fibers[i].state != DONE;
  if (!team->arrived || team->arrived < alive) return;
  team->arrived = 0;
  team->round++;
  for (unsigned i = 0; i < team->size; i++) team->fibers[i].arrived = false;
}

// Runs the fibers that are ready, and those that these wait for, until all are done, or wait for their turn. Where the cluster
// only begins, until nobody can move. Null, or what is wrong.
const char* run_team(bool backwards) {
  unsigned count = team->size;
  bool slow[64];  // four warps each, which run one time in sixteen, others three times in four
  for (bool& s : slow) s = seed > 1 && roll(3) == 0;
  for (;;) {
    bool moved = false, alive = false, turn = false;
    unsigned shift = seed > 1 ? (unsigned)roll(count) / WARP * WARP : 0;
    for (unsigned n = 0; n < count && !faulty; n++) {
      unsigned i = backwards ? count - 1 - n : n;
      if (seed > 1) {
        i = (i + shift) % count;
        bool waits = slow[i / (4 * WARP) % 64] ? roll(16) > 0 : roll(4) == 0;
        if (n % WARP == 0 && waits) {
          bool ready = false;
          for (unsigned k = 0; k < WARP && n + k < count; k++) {
            unsigned j = ((backwards ? count - 1 - n - k : n + k) + shift) % count;
            ready |= team->fibers[j].state == READY;
          }
          moved |= ready;
          n += WARP - 1;
          continue;
        }
      }
      Fiber& f = team->fibers[i];
      if (f.state == WAITING && is_over(f.wait)) f.state = READY;
      if (f.state == READY) { resume(i); moved = true; }
    }
    if (faulty) return fault;
    for (unsigned b = 0; b < count; b += team->threads)
      for (unsigned w = 0; w < team->threads; w += WARP) moved |= release(b + w, b + std::min(w + WARP, team->threads), AT_WARP);
    for (unsigned i = 0; i < count; i++) {
      alive |= team->fibers[i].state != DONE && team->fibers[i].state != AT_TURN;
      turn |= team->fibers[i].state == AT_TURN;
    }
    if (seed > 1 && roll(2)) moved |= let_arrive();
    settle_cluster();
    if (!alive && !beginning) {
      while (!faulty && let_arrive()) {}  // copies out of shared memory that nobody waited for
      return faulty ? fault : nullptr;
    }
    for (unsigned b = 0; b < count; b += team->threads) moved |= release(b, b + team->threads, AT_BLOCK);
    if (moved) continue;
    for (unsigned i = 0; i < count; i++) moved |= team->fibers[i].state == WAITING && is_over(team->fibers[i].wait);
    if (moved || let_arrive()) continue;
    if (!alive || (beginning && turn)) return nullptr;
    tell_deadlock();
    return fault;
  }
}

// Memory of the cluster by an address that kernels have: of a block's own shared memory, or of another's (``map_address``).
constexpr unsigned WINDOW = 1024, RANK = 24;  // where dynamic shared memory begins, as on a device; and the bits of a rank
unsigned char* memory_at(unsigned block, uint32_t address, size_t nbytes, const char* what) {
  unsigned rank = address >> RANK ? (address >> RANK) - 1 : block;
  size_t offset = (address & ((1u << RANK) - 1)) - (size_t)WINDOW;
  if (rank >= team->count) { fail("%s: the cluster has no block %u", what, rank); return nullptr; }
  if (offset + nbytes > shared_size || offset > shared_size) {
    fail("%s: %zu bytes at %u are outside of dynamic shared memory", what, nbytes, address & ((1u << RANK) - 1));
    return nullptr;
  }
  for (unsigned i = 0; i < team->threads; i++)
    if (team->fibers[rank * team->threads + i].state != DONE) {
      team->blocks[rank].dynamic_used = true;
      return team->blocks[rank].dynamic + offset;
    }
  fail("%s: block %u of the cluster has ended", what, rank);
  return nullptr;
}
}  // namespace
}  // namespace emulation
