// What the tests of interrupt controllers and timers share: wires that record, register access through a region, and
// state that travels between two instances.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "bus/device.h"
#include "support/bytes.h"

namespace kite::testing {

// The far end of wires: their levels, and how often each has risen.
class FakeLines final : public bus::IrqSink {
 public:
  void set_irq(uint32_t line, bool level) override {
    if (level && !levels_[line]) ++rises_[line];
    levels_[line] = level;
  }
  [[nodiscard]] bool level(uint32_t line = 0) { return levels_[line]; }
  // Rising edges since the last call.
  int take_rises(uint32_t line = 0) { return std::exchange(rises_[line], 0); }
  [[nodiscard]] bus::IrqLine line(uint32_t number = 0) { return {*this, number}; }

 private:
  std::map<uint32_t, bool> levels_;
  std::map<uint32_t, int> rises_;
};

inline uint64_t read_reg(const std::shared_ptr<Region>& region, uint64_t offset, unsigned size = 1) {
  return region->handler()->io_read(offset, size);
}

inline void write_reg(const std::shared_ptr<Region>& region, uint64_t offset, uint64_t value, unsigned size = 1) {
  region->handler()->io_write(offset, size, value);
}

inline std::vector<uint8_t> saved_state(bus::Device& device) {
  StateWriter writer;
  device.save(writer);
  return writer.take();
}

inline Result<> restore_state(bus::Device& device, const std::vector<uint8_t>& bytes) {
  StateReader reader(bytes);
  device.restore(reader);
  return reader.finish();
}

// `state` (one section) with `size` bytes at `at` of field `number` replaced by `value`: damaged or hostile state.
inline std::vector<uint8_t> with_patched_field(std::vector<uint8_t> state, uint16_t number, size_t at, uint64_t value,
                                               size_t size) {
  size_t position = sizeof(uint16_t) + load<uint16_t>(state.data()) + 2 * sizeof(uint32_t);
  while (position < state.size()) {
    const auto found = load<uint16_t>(state.data() + position);
    const auto length = load<uint32_t>(state.data() + position + sizeof found);
    position += sizeof found + sizeof length;
    if (found == number) {
      EXPECT_LE(at + size, length);
      store_le(state.data() + position + at, size, value);
      return state;
    }
    position += length;
  }
  ADD_FAILURE() << "there is no field " << number;
  return state;
}

}  // namespace kite::testing
