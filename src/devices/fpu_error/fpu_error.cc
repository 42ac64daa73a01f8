#include "devices/fpu_error/fpu_error.h"

#include "devices/section.h"

namespace kite::devices {
namespace {

struct FpuErrorV1 {
  static constexpr uint32_t kVersion = 1;
  bool pending;
};
template <class Codec>
void visit(Codec& codec, FpuErrorV1& wire) {
  codec.field(1, wire.pending);
}

}  // namespace

FpuError::FpuError(std::string path, bus::IrqLine irq13)
    : Device(std::move(path)), irq13_(irq13), region_(Region::io("fpu-error", 2, *this, {1, 1})) {}

void FpuError::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{};
  irq13_.lower();
}

void FpuError::ferr() {
  const std::lock_guard lock(lock_);
  state_.pending = true;
  irq13_.raise();
}

uint64_t FpuError::io_read(uint64_t, unsigned) { return 0xff; }

void FpuError::io_write(uint64_t, unsigned, uint64_t) {
  const std::lock_guard lock(lock_);
  state_.pending = false;
  irq13_.lower();
}

void FpuError::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [pending] = state_;
  save_section(writer, path(), FpuErrorV1{.pending = pending});
}

void FpuError::restore(StateReader& reader) {
  FpuErrorV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const std::lock_guard lock(lock_);
  state_ = State{.pending = wire.pending};
  irq13_.set(wire.pending);
}

}  // namespace kite::devices
