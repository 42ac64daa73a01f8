#include "devices/ide/ide_channel.h"

#include <algorithm>
#include <cstring>

#include "support/bits.h"
#include "support/bytes.h"

namespace kite::devices {

using namespace ata;

namespace {

// Of the command block.
enum Port : uint8_t { kData = 0, kFeatures = 1, kCount = 2, kLbaLow = 3, kLbaHigh = 5, kDevice = 6, kCommand = 7 };

}  // namespace

IdeChannel::IdeChannel(unsigned number, Wiring wiring)
    : wiring_(std::move(wiring)),
      command_ports_(*this, &IdeChannel::read_command, &IdeChannel::write_command, &IdeChannel::read_command_many,
                     &IdeChannel::write_command_many),
      control_port_(*this, &IdeChannel::read_control, &IdeChannel::write_control),
      command_region_(Region::io("ide-command", 8, command_ports_, {.min_size = 1, .max_size = 4, .unaligned = true})),
      control_region_(Region::io("ide-control", 1, control_port_, {.min_size = 1, .max_size = 1})),
      bus_({.name = wiring_.bus_name, .units = 2, .number = number}, *this, lock_, nullptr) {}

void IdeChannel::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{};
  wiring_.irq.lower();
}

void IdeChannel::start() {
  const std::lock_guard lock(lock_);
  follow();
}

void IdeChannel::ata_changed(AtaDevice&) { follow(); }
void IdeChannel::ata_dma_ended(AtaDevice&, uint64_t) {}  // settle_master() sees it

// --- the command block

uint64_t IdeChannel::read_command(uint64_t offset, unsigned size) {
  const std::lock_guard lock(lock_);
  if (offset == kData) return read_data(size);
  uint64_t value = 0;
  for (unsigned i = 0; i < size && offset + i < 8; ++i) value |= uint64_t{read_register(offset + i)} << 8 * i;
  return value;
}

void IdeChannel::write_command(uint64_t offset, unsigned size, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (offset == kData) return write_data(size, value);
  for (unsigned i = 0; i < size && offset + i < 8; ++i)
    write_register(offset + i, static_cast<uint8_t>(value >> 8 * i));
}

// Whole accesses up to the end of the block; the device says what comes after it.
size_t IdeChannel::read_command_many(uint64_t offset, unsigned size, std::span<uint8_t> to) {
  const std::lock_guard lock(lock_);
  AtaDevice* const device = selected();
  if (offset != kData || device == nullptr || device->phase() != AtaDevice::Phase::kPioIn) return 0;
  const std::span<uint8_t> block = device->pio_block();
  const size_t length = align_down(std::min(to.size(), block.size()), size);
  if (length == 0) return 0;
  std::memcpy(to.data(), block.data(), length);
  device->pio_moved(length);
  if (length == block.size()) follow();
  return length;
}

size_t IdeChannel::write_command_many(uint64_t offset, unsigned size, std::span<const uint8_t> from) {
  const std::lock_guard lock(lock_);
  AtaDevice* const device = selected();
  if (offset != kData || device == nullptr || device->phase() != AtaDevice::Phase::kPioOut) return 0;
  const std::span<uint8_t> block = device->pio_block();
  const size_t length = align_down(std::min(from.size(), block.size()), size);
  if (length == 0) return 0;
  std::memcpy(block.data(), from.data(), length);
  device->pio_moved(length);
  if (length == block.size()) follow();
  return length;
}

uint64_t IdeChannel::read_data(unsigned size) {
  AtaDevice* const device = selected();
  if (device == nullptr || device->phase() != AtaDevice::Phase::kPioIn) return 0;
  const std::span<uint8_t> block = device->pio_block();
  const size_t length = std::min<size_t>(size, block.size());
  uint64_t value = 0;
  std::memcpy(&value, block.data(), length);
  device->pio_moved(length);
  if (length == block.size()) follow();
  return value;
}

void IdeChannel::write_data(unsigned size, uint64_t value) {
  AtaDevice* const device = selected();
  if (device == nullptr || device->phase() != AtaDevice::Phase::kPioOut) return;
  const std::span<uint8_t> block = device->pio_block();
  const size_t length = std::min<size_t>(size, block.size());
  std::memcpy(block.data(), &value, length);
  const bool last = length == block.size();
  device->pio_moved(length);
  if (last) follow();
}

// [ATA8-APT] 10: device 0 answers in the name of device 1 when that is absent, with a status of 0. Of a channel without
// devices software shall see nothing.
uint8_t IdeChannel::read_register(uint64_t index) {
  AtaDevice* const chosen = selected();
  AtaDevice* const device = chosen != nullptr ? chosen : bus_.unit(0);
  if (device == nullptr || (chosen == nullptr && index == kCommand)) return 0;
  const Taskfile& regs = device->regs();
  const auto shown = [this](const Register& reg) { return (state_.control & kHob) != 0 ? reg.hob : reg.value; };
  switch (index) {
    case kFeatures: return device->error();
    case kCount: return shown(regs.count);
    case kDevice:
      return static_cast<uint8_t>((regs.device & ~kDev) | kObsoleteOnes | (state_.selected != 0 ? kDev : 0));
    case kCommand: {
      const uint8_t status = device->status();
      device->acknowledge();
      drive_irq();
      return status;
    }
    default: return shown(regs.lba[index - kLbaLow]);
  }
}

void IdeChannel::write_register(uint64_t index, uint8_t value) {
  state_.control &= static_cast<uint8_t>(~kHob);  // [ATA8-APT] 6.2.5
  switch (index) {
    case kData: return;
    case kFeatures: return for_devices([value](AtaDevice& device) { device.write_features(value); });
    case kCount: return for_devices([value](AtaDevice& device) { device.write_count(value); });
    case kDevice: return write_device_register(value);
    case kCommand: return run_command(value);
    default:
      return for_devices([=](AtaDevice& device) { device.write_lba(static_cast<unsigned>(index - kLbaLow), value); });
  }
}

void IdeChannel::write_device_register(uint8_t value) {
  state_.selected = (value & kDev) != 0 ? 1 : 0;
  for_devices([value](AtaDevice& device) { device.write_device(value); });
  drive_irq();
}

void IdeChannel::run_command(uint8_t opcode) {
  if (opcode == op::kDiagnostic) {  // both devices do it, whichever is selected
    if (bus_.unit(0) == nullptr && bus_.unit(1) == nullptr) return;
    state_.selected = 0;
    for_devices([](AtaDevice& device) { device.run_diagnostic(); });
  } else if (AtaDevice* device = selected()) {
    device->command(opcode);
  }
  follow();
}

uint64_t IdeChannel::read_control(uint64_t, unsigned) {
  const std::lock_guard lock(lock_);
  AtaDevice* const device = selected();
  return device == nullptr ? 0 : device->status();
}

void IdeChannel::write_control(uint64_t, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  const bool was_reset = (state_.control & kSrst) != 0, is_reset = (value & kSrst) != 0;
  state_.control = static_cast<uint8_t>(value & (kHob | kSrst | kNien));
  if (is_reset && !was_reset) {
    state_.selected = 0;
    for_devices([](AtaDevice& device) { device.assert_reset(); });
  }
  if (!is_reset && was_reset) for_devices([](AtaDevice& device) { device.release_reset(); });
  follow();
}

// --- what follows

void IdeChannel::follow() {
  settle_master();
  run_master();
  settle_master();
  drive_irq();
}

// [BMIDE] 2.3: the interrupt bit follows the line's edge, whoever raised it.
void IdeChannel::drive_irq() {
  const AtaDevice* const device = selected();
  const bool level = device != nullptr && device->interrupt() && (state_.control & kNien) == 0;
  if (level && !state_.irq_level) state_.master_status |= bus_master::kInterrupt;
  if (level != state_.irq_level) wiring_.irq.set(level);
  state_.irq_level = level;
}

// --- saved state

IdeChannel::State IdeChannel::snapshot() {
  const std::lock_guard lock(lock_);
  State state = state_;
  if (moving()) {
    state.entry = begun_entry_;
    state.used = begun_used_;
    state.exhausted = false;
  }
  return state;
}

bool IdeChannel::possible(const State& state) {
  return state.selected <= 1 && (state.control & ~(kHob | kSrst | kNien)) == 0 &&
         (state.master_command & ~(bus_master::kStart | bus_master::kToMemory)) == 0 &&
         (state.master_status &
          ~(bus_master::kActive | bus_master::kError | bus_master::kInterrupt | bus_master::kCapable)) == 0 &&
         state.entry <= bus_master::kMostEntries && state.used <= 0x10000 && (state.table & 3) == 0;
}

void IdeChannel::restore(const State& state) {
  const std::lock_guard lock(lock_);
  state_ = state;
  wiring_.irq.set(state_.irq_level);
}

}  // namespace kite::devices
