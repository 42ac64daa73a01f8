// The bus master of an IDE channel. [BMIDE] sections 1.2 and 3.1 tell what the status bits mean together:
//   interrupt 1, active 0  the transfer filled the table exactly
//   interrupt 1, active 1  the device had less data than the table has room
//   interrupt 0, active 0  the table ended too early, or an error (then the error bit is set)
// The direction bit is only kept: the device's command says which way its data goes.
#include <algorithm>

#include "devices/ide/ide_channel.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace bus_master;

uint8_t IdeChannel::master_byte(uint64_t offset) const {
  if (offset == kCommand) return state_.master_command;
  if (offset == kStatus) return state_.master_status;
  if (offset >= kTable) return static_cast<uint8_t>(state_.table >> 8 * (offset - kTable));
  return 0;
}

void IdeChannel::write_master_byte(uint64_t offset, uint8_t value) {
  if (offset == kCommand) return write_master_command(value);
  if (offset == kStatus) {
    const auto cleared = static_cast<uint8_t>(value & (kError | kInterrupt));
    state_.master_status = static_cast<uint8_t>((state_.master_status & ~(cleared | kCapable)) | (value & kCapable));
  } else if (offset >= kTable) {
    const auto shift = static_cast<unsigned>(8 * (offset - kTable));
    state_.table = ((state_.table & ~(0xffu << shift)) | uint32_t{value} << shift) & ~3u;
  }
}

uint64_t IdeChannel::read_bus_master(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size && offset + i < bus_master::kSize; ++i)
    value |= uint64_t{master_byte(offset + i)} << 8 * i;
  return value;
}

void IdeChannel::write_bus_master(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  for (unsigned i = 0; i < size && offset + i < bus_master::kSize; ++i)
    write_master_byte(offset + i, static_cast<uint8_t>(value >> 8 * i));
  follow();
}

void IdeChannel::write_master_command(uint8_t value) {
  const bool was_on = (state_.master_command & kStart) != 0, is_on = (value & kStart) != 0;
  state_.master_command = value & (kStart | kToMemory);
  if (is_on && !was_on && !state_.stopping) {
    state_.engaged = state_.exhausted = false;
    state_.entry = state_.used = 0;
    state_.master_status |= kActive;
  } else if (!is_on && was_on) {
    // What is on its way to or from memory cannot be called back; until it has ended the bus master looks active.
    state_.stopping = state_.engaged && moving();
    if (!state_.stopping) state_.master_status &= static_cast<uint8_t>(~kActive);
  }
}

Result<std::vector<SgEntry>> IdeChannel::collect(uint64_t bytes) {
  std::vector<SgEntry> list;
  while (bytes != 0 && !state_.exhausted) {
    // A table does not cross 64 KiB: the address counts within them. [BMIDE] 1.2
    const uint32_t at = (state_.table & 0xffff'0000) | ((state_.table + state_.entry * 8) & 0xffff);
    KITE_ASSIGN(const uint64_t descriptor, wiring_.memory.load<uint64_t>(at));
    const auto address = static_cast<uint32_t>(descriptor) & ~1u, word = static_cast<uint32_t>(descriptor >> 32);
    const uint32_t size = (word & 0xfffe) == 0 ? 0x10000 : word & 0xfffe;
    const uint32_t left = size - std::min(size, state_.used);
    const auto take = static_cast<uint32_t>(std::min<uint64_t>(bytes, left));
    if (take != 0) list.push_back({.address = uint64_t{address} + state_.used, .bytes = take});
    bytes -= take;
    state_.used += take;
    if (take != left) break;
    ++state_.entry;
    state_.used = 0;
    state_.exhausted = (word & kLastEntry) != 0 || state_.entry >= kMostEntries;
  }
  return list;
}

void IdeChannel::fail_master(AtaDevice& device) {
  state_.master_status = static_cast<uint8_t>((state_.master_status & ~kActive) | kError);
  device.fail_dma();
}

// Begins transfers until one is under way or nothing more is wanted.
void IdeChannel::run_master() {
  for_devices([this](AtaDevice& device) {
    while ((state_.master_status & kActive) != 0 && !state_.stopping) {
      const auto wanted = device.dma_wanted();
      if (!wanted) return;
      state_.engaged = true;
      // Nobody grants the bus: data for memory is lost, data from memory cannot be had.
      if (!wiring_.may_master()) {
        device.drop_dma();
        continue;
      }
      begun_entry_ = state_.entry;
      begun_used_ = state_.used;
      const auto list = collect(wanted->bytes);
      if (!list) return fail_master(device);
      const DmaDirection direction = wanted->to_host ? DmaDirection::kToGuest : DmaDirection::kFromGuest;
      auto data = SgBuffer::pin(wiring_.memory, *list, direction);
      if (!data) return fail_master(device);
      device.dma(std::move(*data));
    }
  });
}

bool IdeChannel::moving() {
  bool any = false;
  for_devices([&any](const AtaDevice& device) { any |= device.dma_running(); });
  return any;
}

// A command whose data went through the bus master has ended, or the guest has stopped it and its transfer has ended.
void IdeChannel::settle_master() {
  if (!state_.engaged || moving()) return;
  bool goes_on = false;
  for_devices([&goes_on](const AtaDevice& device) {
    goes_on |= device.phase() == AtaDevice::Phase::kDma || device.phase() == AtaDevice::Phase::kIo;
  });
  if (goes_on && !state_.stopping) return;
  if (state_.stopping || state_.exhausted) state_.master_status &= static_cast<uint8_t>(~kActive);
  state_.engaged = state_.stopping = false;
}

}  // namespace kite::devices
