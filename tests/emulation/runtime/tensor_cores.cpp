// Matrix instructions of a warpgroup (wgmma), whose operands lie in shared memory as their descriptors say; and stmatrix.
//
// An instruction reads shared memory between its issue and the wait for it: at one of the two, by the schedule. Registers of sums
// hold poison in between.
namespace emulation {
namespace {
enum Element { F16, BF16, TF32, E4M3, S8, U8 };

bool whole(Element e) { return e == S8 || e == U8; }
unsigned size_of(Element e) { return e == TF32 ? 4 : e <= BF16 ? 2 : 1; }

// What all threads of a warpgroup issue alike.
struct Instruction {
  uint64_t a, b;  // descriptors; no a where it comes in registers
  unsigned n;
  Element element, other;  // of a and of b
  bool in_registers, turn_a, turn_b, accumulates, early;
  unsigned performed = 0;
  bool read = false;
  std::vector<float> left, right;                // [64][k] and [n][k]
  uint32_t registers[4 * WARP][4];

  unsigned k() const { return 32 / size_of(element); }
  bool same(const Instruction& o) const {
    return a == o.a && b == o.b && n == o.n && element == o.element && other == o.other && in_registers == o.in_registers && turn_a == o.turn_a &&
           turn_b == o.turn_b && accumulates == o.accumulates;
  }
};

float float_of(const unsigned char* bytes, Element element) {
  uint32_t word = 0;
  if (element == F16) {
    _Float16 h;
    std::memcpy(&h, bytes, 2);
    return (float)h;
  }
  if (element == S8) return (float)(signed char)*bytes;
  if (element == U8) return (float)*bytes;
  if (element == E4M3) {
    int exponent = *bytes >> 3 & 15, fraction = *bytes & 7;
    float size = ldexpf((float)(exponent ? 8 + fraction : fraction), (exponent ? exponent : 1) - 10);
    if ((*bytes & 127) == 127) size = NAN;
    return *bytes & 128 ? -size : size;
  }
  std::memcpy(element == BF16 ? (unsigned char*)&word + 2 : (unsigned char*)&word, bytes, element == BF16 ? 2 : 4);
  if (element == TF32) word &= 0xffffe000;
  float f;
  std::memcpy(&f, &word, 4);
  return f;
}

// Where the element (row, k) lies, a row being of A or a column of B. ``turned``: rows lie side by side, not k.
uint32_t place_of_element(uint64_t descriptor, unsigned row, unsigned k, bool turned, Element element) {
  uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4, stride = (descriptor >> 32 & 0x3fff) << 4;
  static const unsigned WIDTHS[4] = {16, 128, 64, 32};  // bytes of a row of the pattern, by the mode
  unsigned mode = descriptor >> 62, width = WIDTHS[mode], size = size_of(element);
  if (descriptor >> 49 & 7) fail("a descriptor with a base offset");
  uint32_t at;
  if (!turned && !mode) at = start + row / 8 * stride + k * size / 16 * leading + row % 8 * 16 + k * size % 16;
  else if (!turned) at = start + row / 8 * stride + row % 8 * width + k * size;
  else if (!mode) at = start + row / 8 * stride + k / 8 * leading + k % 8 * 16 + row % 8 * size;
  else at = start + row * size / width * leading + k / 8 * stride + k % 8 * width + row * size % width;
  return swizzled(at, mode ? width : 0);
}

void read_operand(std::vector<float>& to, unsigned block, uint64_t descriptor, unsigned rows, unsigned ks, bool turned, Element element) {
  to.assign(rows * ks, 0);
  for (unsigned row = 0; row < rows; row++)
    for (unsigned k = 0; k < ks; k++) {
      uint32_t at = place_of_element(descriptor, row, k, turned, element);
      unsigned char* memory = memory_at(block, at, size_of(element), "a matrix instruction");
      if (!memory) return;
      to[row * ks + k] = float_of(memory, element);
    }
}

// The 16 rows of A that a warp has in its registers.
void read_registers(float (&rows)[16][16], const Instruction& i, unsigned warp) {
  unsigned size = size_of(i.element), words = 4 / size;  // elements of a register
  for (unsigned lane = 0; lane < WARP; lane++)
    for (unsigned r = 0; r < 4; r++)
      for (unsigned e = 0; e < words; e++) {
        const unsigned char* word = (const unsigned char*)&i.registers[warp * WARP + lane][r];
        rows[lane / 4 + r % 2 * 8][r / 2 * 4 * words + lane % 4 * words + e] = float_of(word + e * size, i.element);
      }
}

// Toward zero, to multiples of two to the power ``last``.
double cut(double x, int last) { return std::ldexp(std::trunc(std::ldexp(x, -last)), last); }

// What an H200 makes of floats of 8 bits: each term, the sum before among them, is cut off 13 bits behind the exponent of the
// largest, and so is what they sum up to.
float sum_of_few_digits(const float* left, const float* right, unsigned ks, float before) {
  constexpr int DIGITS = 13;
  double terms[33] = {before}, sum = 0;
  int most = -1000, exponent;
  bool finite = std::isfinite(before);
  for (unsigned k = 0; k < ks; k++) terms[k + 1] = (double)left[k] * right[k];
  for (unsigned k = 0; k <= ks; k++) {
    finite &= std::isfinite(terms[k]);
    if (!terms[k]) continue;
    std::frexp(terms[k], &exponent);
    most = std::max(most, exponent - 1);
  }
  for (unsigned k = 0; k <= ks; k++) sum += finite ? cut(terms[k], most - DIGITS) : terms[k];
  if (!finite || !sum) return (float)sum;
  std::frexp(sum, &exponent);
  return (float)cut(sum, exponent - 1 - DIGITS);
}

void perform(Issued& issued) {
  Fiber& f = me();
  unsigned group = linear() / (4 * WARP), thread = linear() % (4 * WARP);
  Instruction& i = *my_block().instructions[group][issued.number - my_block().first[group]];
  if (!i.read) {
    if (!i.in_registers) read_operand(i.left, f.block, i.a, 64, i.k(), i.turn_a, i.element);
    read_operand(i.right, f.block, i.b, i.n, i.k(), i.turn_b, i.other);
    i.read = true;
  }
  end_if_faulty();
  std::vector<uint32_t>& sums = f.cores.sums[issued.sums];
  unsigned ks = i.k(), warp = thread / WARP;
  float rows[16][16];
  if (i.in_registers) read_registers(rows, i, warp);
  for (unsigned e = 0; e < i.n / 2; e++) {
    unsigned row = thread % WARP / 4 + e / 2 % 2 * 8;
    const float* left = i.in_registers ? rows[row] : &i.left[(warp * 16 + row) * ks];
    const float* right = &i.right[(e / 4 * 8 + thread % 4 * 2 + e % 2) * ks];
    if (whole(i.element)) {
      uint32_t total = issued.accumulates ? sums[e] : 0;
      for (unsigned k = 0; k < ks; k++) total += (uint32_t)(int)(left[k] * right[k]);
      sums[e] = total;
      continue;
    }
    float sum = 0;
    if (issued.accumulates) std::memcpy(&sum, &sums[e], 4);
    if (i.element == E4M3) sum = sum_of_few_digits(left, right, ks, sum);
    else for (unsigned k = 0; k < ks; k++) sum += left[k] * right[k];
    std::memcpy(&sums[e], &sum, 4);
  }
  issued.performed = true;
  auto& open = my_block().instructions[group];
  if (++i.performed == 4 * WARP)
    while (!open.empty() && open.front()->performed == 4 * WARP) {
      open.pop_front();
      my_block().first[group]++;
    }
}

// What ran to its end and left something open. Null for nothing.
const char* unfinished() {
  for (unsigned i = 0; i < team->size; i++) {
    const Fiber& f = team->fibers[i];
    if (f.state != DONE) continue;
    if (!f.cores.open.empty()) fail("a thread ended before it waited for its matrix instructions");
    if (!f.stores.empty()) fail("a thread ended with copies out of shared memory that it has not closed");
    for (auto& group : f.groups)
      if (!group.empty()) fail("a thread ended before it waited for its copies out of shared memory");
  }
  return faulty ? fault : nullptr;
}
}  // namespace

void cores_fence() { me().cores.fenced = true; }

void cores_multiply(
    void* place, unsigned n, unsigned long long a, const uint32_t* registers, unsigned long long b, bool accumulates, int element,
    int other, bool turn_a, bool turn_b) {
  uint32_t* sums = (uint32_t*)place;
  Fiber& f = me();
  unsigned group = linear() / (4 * WARP), thread = linear() % (4 * WARP);
  if (!f.cores.fenced) fail("a matrix instruction without a fence before it");
  if (team->threads < (group + 1) * 4 * WARP) fail("a matrix instruction in a warpgroup of less than 128 threads");
  if (!n || n % 8 || n > 256) fail("a matrix instruction has 8 to 256 columns, not %u", n);
  if (whole((Element)element) && n > 32 && n % 16) fail("a matrix instruction of integers has no %u columns", n);
  if (size_of((Element)element) != 2 && (turn_a || turn_b)) fail("operands that are no halves lie along k");
  end_if_faulty();
  auto& all = my_block().instructions[group];
  size_t number = f.cores.next++, index = number - my_block().first[group];
  if (index == all.size()) {
    auto made = std::make_shared<Instruction>();
    made->a = registers ? 0 : a, made->b = b, made->n = n, made->element = (Element)element, made->other = (Element)other, made->in_registers = registers;
    made->turn_a = turn_a, made->turn_b = turn_b, made->accumulates = accumulates, made->early = happens_now();
    all.push_back(made);
  }
  Instruction& i = *all[index];
  Instruction mine;
  mine.a = registers ? 0 : a, mine.b = b, mine.n = n, mine.element = (Element)element, mine.other = (Element)other, mine.in_registers = registers;
  mine.turn_a = turn_a, mine.turn_b = turn_b, mine.accumulates = accumulates;
  if (!i.same(mine)) fail("threads of a warpgroup issue different matrix instructions");
  end_if_faulty();
  if (registers) {
    std::memcpy(i.registers[thread], registers, 16);
    leave(AT_WARP);  // a warp's registers are one operand: its threads meet
    end_if_faulty();
  }
  bool known = f.cores.sums.count(sums);
  std::vector<uint32_t>& values = f.cores.sums[sums];
  if (known && values.size() != n / 2) fail("sums of two sizes in the same registers");
  end_if_faulty();
  if (!known) {
    values.assign(sums, sums + n / 2);
    poison((unsigned char*)sums, (unsigned char*)(sums + n / 2));
  }
  f.cores.open.push_back({number, sums, accumulates, false});
  // Instructions are performed in order.
  if (i.early && (f.cores.open.size() == 1 || f.cores.open[f.cores.open.size() - 2].performed)) perform(f.cores.open.back());
}

void cores_close() {
  Fiber& f = me();
  f.cores.groups.push_back(f.cores.next);
}

void cores_wait(unsigned most) {
  Cores& c = me().cores;
  while (c.groups.size() > most) {
    size_t end = c.groups.front();
    c.groups.erase(c.groups.begin());
    while (!c.open.empty() && c.open.front().number < end) {
      if (!c.open.front().performed) perform(c.open.front());
      uint32_t* sums = c.open.front().sums;
      c.open.erase(c.open.begin());
      bool more = false;
      for (const Issued& other : c.open) more |= other.sums == sums;
      if (more) continue;
      std::vector<uint32_t>& values = c.sums[sums];
      std::copy(values.begin(), values.end(), sums);
      c.sums.erase(sums);
    }
  }
  if (c.open.empty()) c.fenced = false;
  end_if_faulty();
}

// ``address``: of this lane's row of 16 bytes. A lane has words of each of ``count`` matrices of 8 x 8.
void store_matrices(uint32_t address, const uint32_t* words, unsigned count, bool turned) {
  unsigned lane = linear() % WARP;
  if (address % 16) fail("a matrix's row at %u, which is no multiple of 16", address);
  end_if_faulty();
  for (unsigned m = 0; m < count; m++)
    for (unsigned e = 0; e < 2; e++) {
      unsigned row = turned ? lane % 4 * 2 + e : lane / 4, column = turned ? lane / 4 : lane % 4 * 2 + e;
      uint32_t to = (uint32_t)exchange(address, (int)(m * 8 + row)) + column * 2;
      unsigned char* memory = memory_at(me().block, to, 2, "a matrix's row");
      end_if_faulty();
      uint16_t half = (uint16_t)(words[m] >> 16 * e);
      std::memcpy(memory, &half, 2);
    }
}
}  // namespace emulation
