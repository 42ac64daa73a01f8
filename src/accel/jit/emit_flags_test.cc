// Flags that translated code does not keep are exact where an exception shows them.
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

using Bytes = std::vector<uint8_t>;

// Instructions on registers other than RSP and RDI; in loops, not RCX and RSI either.
class Generator {
 public:
  explicit Generator(uint32_t seed, bool in_loop = false) : random_(seed), in_loop_(in_loop) {}

  void instruction(Bytes& code) {
    switch (below(9)) {
      case 0:
      case 1:
      case 2: return with_register(code);
      case 3:
      case 4: return with_immediate(code);
      case 5: return on_one(code, below(2) == 0 ? 0xf6 : 0xfe, below(2));
      case 6: return on_one(code, 0xf6, 3);  // neg
      case 7:
        code.push_back(static_cast<uint8_t>(0x70 | below(16)));  // jcc to the next
        return code.push_back(0);
      default: return move(code);
    }
  }
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  uint64_t value() {
    static constexpr uint64_t kEdges[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fffffff, 0x80000000};
    return below(3) == 0 ? kEdges[below(std::size(kEdges))] : random_() * 0x9e3779b97f4a7c15u;
  }

 private:
  unsigned reg() {
    static constexpr uint8_t kRegs[] = {0, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 1, 6};
    return kRegs[below(std::size(kRegs) - (in_loop_ ? 2 : 0))];
  }
  // Prefixes for an operand of 1, 2, 4 or 8 bytes (as its logarithm), then the opcode.
  static void begin(Bytes& code, unsigned size, unsigned reg, unsigned rm, unsigned opcode) {
    if (size == 1) code.push_back(0x66);
    code.push_back(static_cast<uint8_t>(0x40 | (size == 3 ? 8 : 0) | (reg >> 3) << 2 | rm >> 3));
    code.push_back(static_cast<uint8_t>(opcode | (size == 0 ? 0 : 1)));
    code.push_back(static_cast<uint8_t>(0xc0 | (reg & 7) << 3 | (rm & 7)));
  }
  void with_register(Bytes& code) {
    static constexpr uint8_t kOpcodes[] = {0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x84};
    begin(code, below(4), reg(), reg(), kOpcodes[below(std::size(kOpcodes))]);
  }
  void with_immediate(Bytes& code) {
    const unsigned size = below(4);
    begin(code, size, below(8), reg(), 0x80);
    for (unsigned i = 0; i < (size == 0 ? 1u : size == 1 ? 2u : 4u); ++i) code.push_back(static_cast<uint8_t>(value()));
  }
  void on_one(Bytes& code, unsigned opcode, unsigned extension) {
    if (opcode == 0xf6 && extension < 2) opcode = 0xfe;  // inc, dec
    begin(code, below(4), extension, reg(), opcode);
  }
  void move(Bytes& code) { begin(code, below(4), reg(), reg(), 0x88); }

  std::mt19937_64 random_;
  bool in_loop_;
};

// A load that faults in the middle, the flags made anew behind it.
Bytes make_code(Generator& generator) {
  Bytes code;
  for (unsigned n = 1 + generator.below(6); n > 0; --n) generator.instruction(code);
  code.insert(code.end(), {0x48, 0x8b, 0x1f});  // mov rbx, [rdi]
  for (unsigned n = generator.below(4); n > 0; --n) generator.instruction(code);
  code.insert(code.end(), {0x39, 0xed});  // cmp ebp, ebp
  return code;
}

constexpr int8_t kMostRuns = 12;

// A loop of one block, which goes round kMostRuns times unless it faults.
Bytes make_loop(Generator& generator) {
  Bytes code;
  for (unsigned n = generator.below(4); n > 0; --n) generator.instruction(code);
  code.insert(code.end(), {0x48, 0x8b, 0x1c, 0xf7});  // mov rbx, [rdi+rsi*8]
  for (unsigned n = generator.below(4); n > 0; --n) generator.instruction(code);
  static const Bytes kCounts[] = {{0x48, 0xff, 0xc6}, {0x48, 0x83, 0xc6, 0x01}, {0x48, 0x8d, 0x76, 0x01}};
  static const Bytes kEnds[] = {{0x48, 0x83, 0xfe, kMostRuns, 0x75},  // cmp rsi, kMostRuns; jne
                                {0x83, 0xfe, kMostRuns, 0x72},        // cmp esi, kMostRuns; jb
                                {0xff, 0xc9, 0x75},                   // dec ecx; jne
                                {0x48, 0x83, 0xe9, 0x01, 0x7f},       // sub rcx, 1; jg
                                {0xff, 0xc9, 0x85, 0xc9, 0x75},       // dec ecx; test ecx, ecx; jne
                                {0xff, 0xc9, 0x74, 0x02, 0xeb}};      // dec ecx; je over; jmp
  for (const Bytes* const part :
       {&kCounts[generator.below(std::size(kCounts))], &kEnds[generator.below(std::size(kEnds))]})
    code.insert(code.end(), part->begin(), part->end());
  code.push_back(static_cast<uint8_t>(-static_cast<int>(code.size() + 1)));
  for (unsigned n = generator.below(3); n > 0; --n) generator.instruction(code);
  return code;
}

struct Seen {
  std::array<uint64_t, 16> gpr{};
  uint64_t rip = 0, flags = 0;
  bool operator==(const Seen&) const = default;
};

// Runs one program after the other: making a machine takes longer than a program does.
class Runner {
 public:
  explicit Runner(bool translated) {
    if (!translated) return;
    auto made = Translator::create(m_.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1});
    if (!made) throw std::runtime_error(made.error().message);
    translator_ = std::move(*made);
    m_.cpu().translator = translator_.get();
  }
  ~Runner() { m_.cpu().translator = nullptr; }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  Seen run(uint32_t seed, bool faults, bool loops) {
    Generator generator(seed, loops);
    const Bytes code = loops ? make_loop(generator) : make_code(generator);
    m_.cpu().set_state(m_.initial_state());
    for (unsigned n = 0; n < 16; ++n)
      if (n != x::kRsp) m_.gpr(n) = generator.value();
    m_.gpr(x::kRdi) = TestMachine::kData;
    if (loops) {
      m_.gpr(x::kRsi) = 0;
      m_.gpr(x::kRcx) = kMostRuns;
      m_.gpr(x::kRdi) -= 8 * (faults ? generator.below(kMostRuns) : kPageSize / 16);
    }
    m_.cpu().state.rflags = x::flag::kFixed1;
    m_.cpu().state.cc = generator.value() & x::flag::kArithmetic;
    constexpr uint64_t kPresent = 7;
    m_.set_pte(TestMachine::kData, faults ? 0 : TestMachine::kData | kPresent);
    m_.run(code);
    Seen seen;
    for (unsigned n = 0; n < 16; ++n) seen.gpr[n] = m_.gpr(n);
    seen.rip = faults ? m_.faulting_rip() : m_.cpu().state.rip;
    seen.flags = (faults ? m_.pushed_flags() : m_.cpu().flags()) & x::flag::kArithmetic;
    return seen;
  }
  [[nodiscard]] uint64_t translated_blocks() const { return translator_->counters().blocks.value(); }

 private:
  TestMachine m_;
  std::unique_ptr<Translator> translator_;
};

constexpr uint32_t kSeeds = 2000;

void expect_equal_flags(bool faults, bool loops) {
  Runner translated(true), interpreted(false);
  for (uint32_t seed = 1; seed <= kSeeds; ++seed)
    ASSERT_EQ(translated.run(seed, faults, loops), interpreted.run(seed, faults, loops)) << "seed " << seed;
  EXPECT_GE(translated.translated_blocks(), kSeeds);
}

TEST(EmitFlags, AreExactAtAFaultHoweverTheyWereMade) { expect_equal_flags(true, false); }

TEST(EmitFlags, AreExactAtAFaultInALoop) { expect_equal_flags(true, true); }

TEST(EmitFlags, AreExactBehindALoop) { expect_equal_flags(false, true); }

// However the flags of the branch are made, and those before them.
TEST(EmitFlags, EndlessLoopsAreLeft) {
  TestMachine m;
  auto translator = Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1});
  ASSERT_TRUE(translator);
  m.cpu().translator = translator->get();
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    Generator generator(seed, true);
    Bytes code;
    for (unsigned n = generator.below(4); n > 0; --n) generator.instruction(code);
    if (generator.below(2) == 0) code.insert(code.end(), {0x48, 0x8b, 0x1f});  // mov rbx, [rdi]
    for (unsigned n = generator.below(3); n > 0; --n) generator.instruction(code);
    static const Bytes kEnds[] = {{0x48, 0x39, 0xc9, 0x74},         // cmp rcx, rcx; je
                                  {0x85, 0xf6, 0x75},               // test esi, esi; jne
                                  {0x31, 0xc9, 0xff, 0xc1, 0x75}};  // xor ecx, ecx; inc ecx; jne
    const Bytes& end = kEnds[generator.below(std::size(kEnds))];
    code.insert(code.end(), end.begin(), end.end());
    code.push_back(static_cast<uint8_t>(-static_cast<int>(code.size() + 1)));
    m.cpu().set_state(m.initial_state());
    m.gpr(x::kRdi) = TestMachine::kData;
    m.gpr(x::kRsi) = 1;
    std::thread other([&m] {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      m.requests.fetch_or(request::kKick);
      m.cpu().translation.alarm.fetch_or(cpu::TranslationArea::kRequest);
    });
    ASSERT_EQ(m.run(code), cpu::Exit::kKicked);  // or it never comes back
    other.join();
  }
  m.cpu().translator = nullptr;
}

TEST(EmitFlags, AreExactBehindTheBlock) { expect_equal_flags(false, false); }

}  // namespace
}  // namespace kite::jit
