#include "machine/machine_io.h"

#include "support/bits.h"
#include "support/log.h"

namespace kite::machine {

void MachineIo::apply_map_changes() {
  const bool smm_stale = smm_memory_ != nullptr && smm_memory_->stale();
  if (!memory_.stale() && !ports_.stale() && !smm_stale) [[likely]]
    return;
  gate_.exclusive([this] {
    if (smm_memory_ != nullptr && smm_memory_->stale()) smm_memory_->commit();
    if (memory_.stale()) memory_.commit();
    if (ports_.stale()) ports_.commit();
  });
}

void MachineIo::set_clock(Clock& clock, QueuedWrites* queued) {
  coalesced_ = std::make_unique<CoalescedRing>(clock, [this] { apply_map_changes(); }, queued);
}

void MachineIo::drain_coalesced() {
  if (coalesced_) coalesced_->drain();
}

uint32_t MachineIo::pio_read(uint16_t port, unsigned size) {
  uint64_t value = low_mask(size * 8);
  drain_coalesced();
  if (ports_.read(port, size, value) == AccessResult::kUnassigned)
    log::print(log::Category::kUnimplemented, "read of port {:#06x}, where nothing is", port);
  log::print(log::Category::kIo, "in{} {:#06x} -> {:#x}", size * 8, port, value);
  apply_map_changes();
  return static_cast<uint32_t>(value);
}

void MachineIo::pio_write(uint16_t port, unsigned size, uint32_t value) {
  log::print(log::Category::kIo, "out{} {:#06x} <- {:#x}", size * 8, port, value);
  if (coalesced_ && coalesced_->post(ports_, port, size, value)) return;
  drain_coalesced();
  if (ports_.write(port, size, value) == AccessResult::kUnassigned)
    log::print(log::Category::kUnimplemented, "write of {:#x} to port {:#06x}, where nothing is", value, port);
  apply_map_changes();
}

// Not while every access is to be seen in the log.
size_t MachineIo::pio_read_many(uint16_t port, unsigned size, std::span<uint8_t> to) {
  if (log::enabled(log::Category::kIo)) return 0;
  drain_coalesced();
  const size_t moved = ports_.read_many(port, size, to);
  apply_map_changes();
  return moved;
}

size_t MachineIo::pio_write_many(uint16_t port, unsigned size, std::span<const uint8_t> from) {
  if (log::enabled(log::Category::kIo)) return 0;
  drain_coalesced();
  const size_t moved = ports_.write_many(port, size, from);
  apply_map_changes();
  return moved;
}

uint64_t MachineIo::mmio_read(Gpa address, unsigned size) { return read_memory(memory_, address, size); }

void MachineIo::mmio_write(Gpa address, unsigned size, uint64_t value) { write_memory(memory_, address, size, value); }

uint64_t MachineIo::smm_read(Gpa address, unsigned size) {
  return read_memory(smm_memory_ != nullptr ? *smm_memory_ : memory_, address, size);
}

void MachineIo::smm_write(Gpa address, unsigned size, uint64_t value) {
  write_memory(smm_memory_ != nullptr ? *smm_memory_ : memory_, address, size, value);
}

uint64_t MachineIo::read_memory(AddressSpace& memory, Gpa address, unsigned size) {
  uint64_t value = low_mask(size * 8);
  drain_coalesced();
  if (memory.read(address, size, value) == AccessResult::kUnassigned)
    log::print(log::Category::kUnimplemented, "read of memory {:#x}, where nothing is", address);
  log::print(log::Category::kIo, "read{} {:#x} -> {:#x}", size * 8, address, value);
  apply_map_changes();
  return value;
}

void MachineIo::write_memory(AddressSpace& memory, Gpa address, unsigned size, uint64_t value) {
  log::print(log::Category::kIo, "write{} {:#x} <- {:#x}", size * 8, address, value);
  if (coalesced_ && coalesced_->post(memory, address, size, value)) return;
  drain_coalesced();
  if (memory.write(address, size, value) == AccessResult::kUnassigned)
    log::print(log::Category::kUnimplemented, "write of {:#x} to memory {:#x}, where nothing is", value, address);
  apply_map_changes();
}

void MachineIo::fpu_error() {
  if (fpu_error_) fpu_error_();
}

}  // namespace kite::machine
