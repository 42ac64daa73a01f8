// Random streams of valid user-mode instructions, made to do something: operands lie in the stream's pages, counts are
// small, divisions mostly succeed. Faults happen, rarely.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "streams/snapshot.h"

namespace kite::streams {

// splitmix64: the same stream for the same seed everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  uint64_t below(uint64_t limit) { return next() % limit; }
  bool percent(unsigned chance) { return below(100) < chance; }

 private:
  uint64_t state_;
};

// One instruction, or several that make sense only together.
struct Instruction {
  std::array<uint8_t, 112> bytes{};
  uint8_t size = 0;
  uint8_t tail = 0;  // bytes of the instructions behind the one that rip_at or branch_at is in
  // A RIP-relative operand: where its displacement is, and what it shall lead to.
  uint8_t rip_at = 0;
  uint64_t rip_target = 0;
  // A forward branch: where its displacement is, its width, and how many following instructions it passes over.
  uint8_t branch_at = 0;
  uint8_t branch_bytes = 0;
  uint8_t branch_skips = 0;
  bool branch_absolute = false;  // the address itself is wanted there
};

struct Stream {
  uint64_t seed = 0;
  bool wide = true;
  Registers registers;
  Memory memory;
  std::vector<Instruction> instructions;
};

// The instructions that every stream of this seed has.
Stream generate(uint64_t seed, bool wide, unsigned length);

// Places the instructions one behind the other with a UD2 behind them, and resolves what depends on their addresses.
// `starts` gets the offset of each instruction and of the UD2.
World assemble(const Stream& stream, std::vector<uint32_t>& starts);

}  // namespace kite::streams
