#include "devices/pc_testdev/pc_testdev.h"

#include <algorithm>
#include <vector>

#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {
namespace {

struct PcTestdevV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t latch;
  uint32_t levels;
  std::vector<uint8_t> memory;
};
template <class Codec>
void visit(Codec& codec, PcTestdevV1& wire) {
  codec.field(1, wire.latch);
  codec.field(2, wire.levels);
  codec.field(3, wire.memory);
}

constexpr uint64_t kLatchSize = 4;

}  // namespace

Result<std::unique_ptr<PcTestdev>> PcTestdev::create(std::string path, Wiring wiring) {
  KITE_ASSIGN(auto memory, RamBlock::create(path, kMemorySize));
  return std::unique_ptr<PcTestdev>(new PcTestdev(std::move(path), std::move(wiring), std::move(memory)));
}

PcTestdev::PcTestdev(std::string path, Wiring wiring, std::shared_ptr<RamBlock> memory)
    : Device(std::move(path)),
      wiring_(std::move(wiring)),
      latch_(*this, &PcTestdev::read_latch, &PcTestdev::write_latch),
      flush_(*this, &PcTestdev::read_flush, &PcTestdev::write_flush),
      lines_(*this, &PcTestdev::read_line, &PcTestdev::write_line),
      latch_region_(Region::io("pc-testdev-latch", kLatchSize, latch_, {.min_size = 1, .max_size = 4})),
      flush_region_(Region::io("pc-testdev-flush", 4, flush_, {.min_size = 1, .max_size = 4})),
      byte_latch_region_(Region::io("pc-testdev-byte-latch", kLatchSize, latch_, {.min_size = 1, .max_size = 1})),
      line_region_(Region::io("pc-testdev-lines", kLines, lines_, {.min_size = 1, .max_size = 4, .unaligned = true})),
      memory_region_(Region::ram_device("pc-testdev-memory", memory)),
      memory_(std::move(memory)) {}

PcTestdev::~PcTestdev() = default;

void PcTestdev::reset() {
  const std::lock_guard lock(lock_);
  drive_lines(0);
  state_ = State{};
}

uint64_t PcTestdev::read_latch(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  return (uint64_t{state_.latch} >> (8 * offset)) & low_mask(8 * size);
}

void PcTestdev::write_latch(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  const uint64_t mask = low_mask(8 * size) << (8 * offset);
  state_.latch = static_cast<uint32_t>((state_.latch & ~mask) | ((value << (8 * offset)) & mask));
}

uint64_t PcTestdev::read_flush(uint64_t, unsigned size) { return low_mask(8 * size); }

void PcTestdev::write_flush(uint64_t, unsigned, uint64_t value) { wiring_.flush(align_down(value, kPageSize)); }

uint64_t PcTestdev::read_line(uint64_t, unsigned size) { return low_mask(8 * size); }

// A wide write drives one line, the one its first byte addresses.
void PcTestdev::write_line(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  const uint32_t line = bit<uint32_t>(static_cast<unsigned>(offset));
  drive_lines((value & 0xff) != 0 ? state_.levels | line : state_.levels & ~line);
}

void PcTestdev::drive_lines(uint32_t levels) {
  const uint32_t changed = levels ^ state_.levels;
  state_.levels = levels;
  for (unsigned i = 0; i < kLines; ++i)
    if ((changed & bit<uint32_t>(i)) != 0) wiring_.lines[i].set((levels & bit<uint32_t>(i)) != 0);
}

void PcTestdev::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [latch, levels] = state_;
  const uint8_t* const host = memory_->host();
  save_section(writer, path(), PcTestdevV1{.latch = latch, .levels = levels, .memory = {host, host + kMemorySize}});
}

void PcTestdev::restore(StateReader& reader) {
  PcTestdevV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  if (!require(reader, wire.levels < bit<uint32_t>(kLines), "a line above 23 is driven") ||
      !require(reader, wire.memory.size() == kMemorySize, "the test memory is not 64 KiB"))
    return;
  const std::lock_guard lock(lock_);
  std::ranges::copy(wire.memory, memory_->host());
  memory_->note_write(0, kMemorySize);
  drive_lines(wire.levels);
  state_ = State{.latch = wire.latch, .levels = wire.levels};
}

}  // namespace kite::devices
