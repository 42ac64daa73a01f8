#include "devices/ide/piix_ide.h"

#include "devices/ide/piix_ide_regs.h"
#include "devices/section.h"

namespace kite::devices {

using namespace piix_ide_regs;

namespace {

struct PiixIdeV1 {
  static constexpr uint32_t kVersion = 1;
  struct Channel {
    std::array<uint8_t, 4> registers;  // selected, control, bus master command and status
    std::array<uint32_t, 3> table;     // address, entry, bytes used of it
    std::array<bool, 4> flags;         // stopping, engaged, exhausted, interrupt line
  };
  std::array<Channel, 2> channels;
};
template <class Codec>
void visit(Codec& codec, PiixIdeV1& wire) {
  uint16_t number = 1;
  for (PiixIdeV1::Channel& channel : wire.channels) {
    codec.field(number++, channel.registers);
    codec.field(number++, channel.table);
    codec.field(number++, channel.flags);
  }
}

IdeChannel::State from_wire(const PiixIdeV1::Channel& wire) {
  return {.selected = wire.registers[0],
          .control = wire.registers[1],
          .master_command = wire.registers[2],
          .master_status = wire.registers[3],
          .table = wire.table[0],
          .stopping = wire.flags[0],
          .engaged = wire.flags[1],
          .exhausted = wire.flags[2],
          .entry = wire.table[1],
          .used = wire.table[2],
          .irq_level = wire.flags[3]};
}

}  // namespace

PiixIde::PiixIde(std::string path, Model model, Wiring wiring)
    : PciDevice(std::move(path), {.vendor = 0x8086,
                                  .device = model == Model::kPiix3 ? uint16_t{0x7010} : uint16_t{0x7111},
                                  .class_code = 0x010180}),
      model_(model),
      bus_master_window_(*this, &PiixIde::read_bus_master, &PiixIde::write_bus_master),
      channels_{IdeChannel(0, channel_wiring(wiring, 0)), IdeChannel(1, channel_wiring(wiring, 1))} {
  declare_bar(4,
              Region::io("ide-bus-master", 2 * bus_master::kSize, bus_master_window_,
                         {.min_size = 1, .max_size = 4, .unaligned = true}),
              {.io = true});
  for (unsigned i = kIdetim; i <= kSidetim; ++i) config_.writable[i] = 0xff;
  if (model_ == Model::kPiix4) {
    config_.writable[kUdmactl] = 0x0f;
    config_.writable[kUdmatim] = config_.writable[kUdmatim + 1] = 0x33;
  }
  set_reset_values();
}

IdeChannel::Wiring PiixIde::channel_wiring(const Wiring& wiring, unsigned channel) {
  return {.memory = wiring.memory,
          .irq = wiring.irqs[channel],
          .bus_name = wiring.bus_names[channel],
          .may_master = [this] { return may_master(); }};
}

void PiixIde::set_reset_values() {
  const std::lock_guard lock(config_lock_);
  for (unsigned i = kIdetim; i < kUdmatim + 2u; ++i) config_.bytes[i] = 0;
  config_.set16(kIdetim, kDecode);
  config_.set16(kIdetim + 2, kDecode);
  config_.set16(bus::pci::kStatus, bus::pci::kStatusDevselMedium | bus::pci::kStatusFastBackToBack);
  map_ports();
}

void PiixIde::reset() {
  reset_config();
  set_reset_values();
  for (IdeChannel& channel : channels_) channel.reset();
}

void PiixIde::start() {
  for (IdeChannel& channel : channels_) channel.start();
}

void PiixIde::config_written(uint16_t offset, unsigned size, uint32_t) {
  if (offset < kIdetim + 4u && offset + size > kIdetim) map_ports();
}

void PiixIde::map_ports() {
  for (unsigned i = 0; i < 2; ++i) {
    const bool on = (config_.get16(static_cast<uint16_t>(kIdetim + 2 * i)) & kDecode) != 0;
    channels_[i].command_region()->set_enabled(on);
    channels_[i].control_region()->set_enabled(on);
  }
}

uint64_t PiixIde::read_bus_master(uint64_t offset, unsigned size) {
  return channels_[offset / bus_master::kSize].read_bus_master(offset % bus_master::kSize, size);
}

void PiixIde::write_bus_master(uint64_t offset, unsigned size, uint64_t value) {
  channels_[offset / bus_master::kSize].write_bus_master(offset % bus_master::kSize, size, value);
}

void PiixIde::save(StateWriter& writer) {
  PiixIdeV1 wire{};
  for (unsigned i = 0; i < 2; ++i) {
    const auto [selected, control, command, status, table, stopping, engaged, exhausted, entry, used, irq_level] =
        channels_[i].snapshot();
    wire.channels[i] = {.registers = {selected, control, command, status},
                        .table = {table, entry, used},
                        .flags = {stopping, engaged, exhausted, irq_level}};
  }
  save_section(writer, path(), wire, [&] { save_config(writer); });
}

void PiixIde::restore(StateReader& reader) {
  PiixIdeV1 wire{};
  std::array<IdeChannel::State, 2> states;
  if (!restore_section(reader, path(), wire, [&] {
        for (unsigned i = 0; i < 2; ++i) {
          states[i] = from_wire(wire.channels[i]);
          if (!require(reader, IdeChannel::possible(states[i]), "a channel's registers have reserved bits")) return;
        }
        restore_config(reader);
      }))
    return;
  for (unsigned i = 0; i < 2; ++i) channels_[i].restore(states[i]);
  const std::lock_guard lock(config_lock_);
  map_ports();
}

}  // namespace kite::devices
