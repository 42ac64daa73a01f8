#include "devices/port92/port92.h"

#include "devices/section.h"

namespace kite::devices {
namespace {

constexpr uint8_t kInitNow = 1u << 0;
constexpr uint8_t kA20 = 1u << 1;

struct Port92V1 {
  static constexpr uint32_t kVersion = 1;
  uint8_t control;
};
template <class Codec>
void visit(Codec& codec, Port92V1& wire) {
  codec.field(1, wire.control);
}

}  // namespace

Port92::Port92(std::string path, std::function<void()> init_reset)
    : Device(std::move(path)), init_reset_(std::move(init_reset)), region_(Region::io("port92", 1, *this, {1, 1})) {
  reset();
}

void Port92::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{.control = kA20};
}

uint64_t Port92::io_read(uint64_t, unsigned) {
  const std::lock_guard lock(lock_);
  return state_.control;
}

void Port92::io_write(uint64_t, unsigned, uint64_t value) {
  bool init = false;
  {
    const std::lock_guard lock(lock_);
    init = (value & ~uint64_t{state_.control} & kInitNow) != 0;
    state_.control = static_cast<uint8_t>(value & (kInitNow | kA20));
  }
  if (init) init_reset_();
}

void Port92::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [control] = state_;
  save_section(writer, path(), Port92V1{.control = control});
}

void Port92::restore(StateReader& reader) {
  Port92V1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  if (!require(reader, (wire.control & ~(kInitNow | kA20)) == 0, "port 0x92 has bits that do not exist")) return;
  const std::lock_guard lock(lock_);
  state_ = State{.control = wire.control};
}

}  // namespace kite::devices
