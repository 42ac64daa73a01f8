// R12 to R15, which live in the Cpu, and their copies in scratch registers: what code computes in them is what the
// interpreter computes.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <vector>

#include "accel/jit/translator.h"
#include "cpu/test_machine.h"

namespace kite::jit {
namespace {

using cpu::TestMachine;
namespace x = x86;

constexpr size_t kDataBytes = 256;

// Programs without faults: on R12 to R15, two others, and memory at RDI.
class Program {
 public:
  explicit Program(uint32_t seed) : random_(seed) {}

  std::vector<uint8_t> make(unsigned count) {
    for (unsigned i = 0; i < count; ++i) instruction();
    bytes({0x9c, 0x58});  // pushfq; pop rax
    return code_;
  }
  uint64_t value() { return random_() * 0x9e3779b97f4a7c15u ^ random_(); }

 private:
  unsigned below(unsigned limit) { return static_cast<unsigned>(random_() % limit); }
  uint8_t reg() {
    static constexpr uint8_t kRegs[] = {x::kR12, x::kR13, x::kR14, x::kR15, x::kRcx, x::kRdx};
    return kRegs[below(std::size(kRegs))];
  }
  void bytes(std::initializer_list<unsigned> all) {
    for (const unsigned byte : all) code_.push_back(static_cast<uint8_t>(byte));
  }
  void immediate(unsigned count) {
    while (count-- != 0) bytes({below(256)});
  }
  // `size` 1, 2, 4 or 8; the opcode may be of two bytes.
  void prefixes(unsigned size, unsigned reg, unsigned rm, unsigned opcode) {
    if (size == 2) bytes({0x66});
    bytes({0x40u | (size == 8 ? 8u : 0u) | (reg >> 3) << 2 | rm >> 3});
    if (opcode > 0xff) bytes({opcode >> 8});
    bytes({opcode & 0xff});
  }
  void registers(unsigned size, unsigned opcode, unsigned reg, unsigned rm) {
    prefixes(size, reg, rm, opcode);
    bytes({0xc0 | (reg & 7) << 3 | (rm & 7)});
  }
  void memory(unsigned size, unsigned opcode, unsigned reg) {
    prefixes(size, reg, x::kRdi, opcode);
    bytes({0x40 | (reg & 7) << 3 | x::kRdi, below(14) * 8});
  }
  // Behind what leaves some of them undefined.
  void define_flags() { registers(8, 0x85, reg(), reg()); }  // test
  unsigned any_size() { return 1u << below(4); }
  unsigned wide_size() { return 2u << below(3); }
  static unsigned wide(unsigned size) { return size == 1 ? 0 : 1; }

  void instruction() {
    static constexpr uint8_t kTwo[] = {0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x84};
    const unsigned size = any_size();
    switch (below(17)) {
      case 0:
      case 1:
      case 2: return registers(size, kTwo[below(std::size(kTwo))] | wide(size), reg(), reg());
      case 3:
      case 4:
      case 5: return registers(size, 0x88 | wide(size), reg(), reg());  // mov
      case 6:
        registers(wide_size(), 0x0faf, reg(), reg());  // imul
        return define_flags();
      case 7:
        registers(8, 0x69, reg(), reg());  // imul by an immediate
        immediate(4);
        return define_flags();
      case 8: return registers(wide_size(), 0x0f40 | below(16), reg(), reg());                           // cmov
      case 9: return registers(below(2) == 0 ? 4 : 8, 0x0fb6 | below(2) | below(2) << 3, reg(), reg());  // movzx, movsx
      case 10:
        registers(size, 0xc0 | wide(size), 4 + below(2), reg());  // shl, shr
        immediate(1);
        return define_flags();
      case 11: return registers(size, 0xfe | wide(size), below(2), reg());      // inc, dec
      case 12: return registers(size, 0xf6 | wide(size), 2 + below(2), reg());  // not, neg
      case 13: registers(size, 0x80 | wide(size), below(8), reg()); return immediate(std::min(size, 4u));
      case 14: return memory(size, (below(2) == 0 ? 0x88 : 0x8a) | wide(size), reg());  // mov
      case 15:
        if (below(2) == 0) return registers(1, 0x0f90 | below(16), 0, reg());  // setcc
        return bytes({0x70 | below(16), 0});                                   // jcc to the next
      default: {
        const unsigned to = reg(), size_of_move = below(2) == 0 ? 4 : 8;  // mov of an immediate
        prefixes(size_of_move, 0, to, 0xb8 | (to & 7));
        return immediate(size_of_move);
      }
    }
  }

  std::mt19937 random_;
  std::vector<uint8_t> code_;
};

struct Outcome {
  std::array<uint64_t, 16> registers;
  uint64_t flags;
  std::array<uint64_t, kDataBytes / 8> data;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const std::vector<uint8_t>& code, uint32_t seed, bool translated) {
  TestMachine m;
  std::unique_ptr<Translator> translator;
  if (translated) {
    translator = std::move(*Translator::create(m.cpu(), {.code_bytes = size_t{1} << 20, .threshold = 1}));
    m.cpu().translator = translator.get();
  }
  Program values(seed);
  for (const unsigned reg : {x::kR12, x::kR13, x::kR14, x::kR15, x::kRcx, x::kRdx}) m.gpr(reg) = values.value();
  for (size_t i = 0; i < kDataBytes; i += 8) m.poke<uint64_t>(TestMachine::kData + i, values.value());
  m.gpr(x::kRdi) = TestMachine::kData;
  m.run(code);
  EXPECT_EQ(m.vector(), std::nullopt);
  if (translated) EXPECT_NE(translator->counters().blocks.value(), 0u);
  Outcome outcome{};
  std::copy_n(m.cpu().state.gpr, outcome.registers.size(), outcome.registers.begin());
  constexpr uint64_t kFlagOfNobody = x::flag::kAf;  // undefined behind most of these
  outcome.flags = m.gpr(x::kRax) & ~kFlagOfNobody;
  for (size_t i = 0; i < kDataBytes; i += 8) outcome.data[i / 8] = m.peek<uint64_t>(TestMachine::kData + i);
  m.cpu().translator = nullptr;
  return outcome;
}

// Sanitizers take long to make a machine, of which each program has two.
#if __has_feature(address_sanitizer)
constexpr uint32_t kPrograms = 80;
#else
constexpr uint32_t kPrograms = 400;
#endif

TEST(Copies, CodeComputesWhatTheInterpreterDoes) {
  for (uint32_t seed = 1; seed <= kPrograms; ++seed) {
    const std::vector<uint8_t> code = Program(seed).make(60);
    ASSERT_EQ(run(code, seed, true), run(code, seed, false)) << "program " << seed;
  }
}

}  // namespace
}  // namespace kite::jit
