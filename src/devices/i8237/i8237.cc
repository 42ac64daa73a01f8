#include "devices/i8237/i8237.h"

#include <algorithm>

#include "devices/section.h"
#include "support/bits.h"

namespace kite::devices {

using namespace i8237_regs;

namespace {

struct I8237V1 {
  static constexpr uint32_t kVersion = 1;
  // By channel 0..7: base address, base count, address, count.
  std::array<std::array<uint16_t, 4>, I8237::kAllChannels> counters;
  std::array<uint8_t, I8237::kAllChannels> modes;
  // By controller: command, mask, terminal counts, software requests, requests.
  std::array<std::array<uint8_t, 5>, 2> registers;
  std::array<bool, 2> high_byte;
  std::array<uint8_t, kPages> pages;
};
template <class Codec>
void visit(Codec& codec, I8237V1& wire) {
  codec.field(1, wire.counters);
  codec.field(2, wire.modes);
  codec.field(3, wire.registers);
  codec.field(4, wire.high_byte);
  codec.field(5, wire.pages);
}

constexpr AccessRule kBytes{.min_size = 1, .max_size = 1};

}  // namespace

I8237::I8237(std::string path, GuestMemory& memory)
    : Device(std::move(path)),
      memory_(memory),
      bytes_window_(*this, &I8237::read_bytes, &I8237::write_bytes),
      words_window_(*this, &I8237::read_words, &I8237::write_words),
      pages_window_(*this, &I8237::read_page, &I8237::write_page),
      regions_{Region::io("dma1", 16, bytes_window_, kBytes), Region::io("dma2", 32, words_window_, kBytes),
               Region::io("dma-pages", kPages, pages_window_, kBytes)} {}

void I8237::reset() {
  const std::lock_guard lock(lock_);
  std::array<uint8_t, 2> requests{state_.chips[0].requests, state_.chips[1].requests};
  state_ = State{};
  for (size_t i = 0; i < requests.size(); ++i) state_.chips[i].requests = requests[i];  // the devices' own
}

// --- registers

uint64_t I8237::read_bytes(uint64_t offset, unsigned) { return read(0, static_cast<unsigned>(offset)); }
void I8237::write_bytes(uint64_t offset, unsigned, uint64_t value) {
  write(0, static_cast<unsigned>(offset), static_cast<uint8_t>(value));
}
uint64_t I8237::read_words(uint64_t offset, unsigned) { return read(1, static_cast<unsigned>(offset / 2)); }
void I8237::write_words(uint64_t offset, unsigned, uint64_t value) {
  write(1, static_cast<unsigned>(offset / 2), static_cast<uint8_t>(value));
}

uint64_t I8237::read_page(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return state_.pages[offset % kPages];
}

void I8237::write_page(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  state_.pages[offset % kPages] = static_cast<uint8_t>(value);
}

uint8_t I8237::read(unsigned chip, unsigned reg) {
  const std::lock_guard lock(lock_);
  return read_register(state_.chips[chip], reg);
}

void I8237::write(unsigned chip, unsigned reg, uint8_t value) {
  {
    const std::lock_guard lock(lock_);
    write_register(state_.chips[chip], reg, value);
  }
  // Only these can let a channel go on.
  if (reg == kStatusCommand || reg == kSingleMask || reg == kClearMask || reg == kAllMask) wake(chip);
}

void I8237::wake(unsigned chip) {
  for (unsigned channel = chip * kChannels; channel < (chip + 1) * kChannels; ++channel) {
    DmaClient* client = nullptr;
    {
      const std::lock_guard lock(lock_);
      const bool asks = (state_.chips[chip].requests >> channel % kChannels & 1) != 0;
      if (asks && may_run(channel)) client = clients_[channel];
    }
    if (client != nullptr) client->dma_ready();
  }
}

uint8_t I8237::read_register(Chip& chip, unsigned reg) {
  if (reg < kStatusCommand) {
    const Channel& channel = chip.channels[reg / 2];
    const uint16_t value = reg % 2 == 0 ? channel.address : channel.count;
    const bool high = chip.high_byte;
    chip.high_byte = !high;
    return static_cast<uint8_t>(high ? value >> 8 : value);
  }
  if (reg == kStatusCommand) {
    const auto value = static_cast<uint8_t>(chip.terminal_counts | (chip.requests | chip.software_requests) << 4);
    chip.terminal_counts = 0;
    return value;
  }
  return reg == kAllMask ? static_cast<uint8_t>(chip.mask | 0xf0) : 0;
}

void I8237::put_byte(Chip& chip, uint16_t& base, uint16_t& current, uint8_t value) {
  base = static_cast<uint16_t>(chip.high_byte ? (base & 0x00ff) | value << 8 : (base & 0xff00) | value);
  current = base;
  chip.high_byte = !chip.high_byte;
}

void I8237::write_register(Chip& chip, unsigned reg, uint8_t value) {
  const auto channel_bit = static_cast<uint8_t>(1u << (value & kModeChannel));
  const auto with = [channel_bit](uint8_t bits, bool set) {
    return static_cast<uint8_t>(set ? bits | channel_bit : bits & ~channel_bit);
  };
  switch (reg) {
    case kStatusCommand: chip.command = value; return;
    case kRequest: chip.software_requests = with(chip.software_requests, (value & 4) != 0); return;
    case kSingleMask: chip.mask = with(chip.mask, (value & 4) != 0); return;
    case kMode: chip.channels[value & kModeChannel].mode = value & ~kModeChannel; return;
    case kClearFlipFlop: chip.high_byte = false; return;
    case kMasterClear:
      chip.command = chip.terminal_counts = chip.software_requests = 0;
      chip.high_byte = false;
      chip.mask = 0xf;
      return;
    case kClearMask: chip.mask = 0; return;
    case kAllMask: chip.mask = value & 0xf; return;
    default: break;
  }
  Channel& channel = chip.channels[reg / 2 % kChannels];
  if (reg % 2 == 0) return put_byte(chip, channel.base_address, channel.address, value);
  put_byte(chip, channel.base_count, channel.count, value);
}

// --- transfers

void I8237::set_client(unsigned channel, DmaClient* client) {
  const std::lock_guard lock(lock_);
  clients_[channel % kAllChannels] = client;
}

void I8237::set_request(unsigned channel, bool level) {
  const std::lock_guard lock(lock_);
  uint8_t& requests = state_.chips[channel / kChannels % 2].requests;
  const auto mask = static_cast<uint8_t>(1u << channel % kChannels);
  requests = static_cast<uint8_t>(level ? requests | mask : requests & ~mask);
}

bool I8237::may_run(unsigned channel) const {
  const Chip& chip = state_.chips[channel / kChannels % 2];
  const unsigned own = channel % kChannels;
  return (chip.command & kCommandDisable) == 0 && (chip.mask >> own & 1) == 0 &&
         (chip.channels[own].mode & kModeKind) != kModeCascade;
}

// Goes from place to place as the counters do. `move_piece(address, at, bytes)` answers whether memory was there.
template <class Move>
I8237::Transfer I8237::move(unsigned number, size_t bytes, uint8_t transfer, Move move_piece) {
  Transfer done;
  if (!may_run(number)) return done;
  Chip& chip = state_.chips[number / kChannels % 2];
  Channel& channel = chip.channels[number % kChannels];
  const uint8_t kind = channel.mode & kModeTransfer;
  const bool verify = kind == kTransferVerify;
  if (!verify && kind != transfer) return done;  // programmed for the other direction
  const unsigned unit = number < kChannels ? 1 : 2;
  const bool down = (channel.mode & kModeDecrement) != 0;
  const uint8_t page = state_.pages[kPageOf[number % kAllChannels]];
  while (done.bytes + unit <= bytes && !done.terminal_count) {
    // Up to where address or count wrap.
    size_t units = std::min<size_t>((bytes - done.bytes) / unit, channel.count + size_t{1});
    units = down ? 1 : std::min<size_t>(units, size_t{0x10000} - channel.address);
    const Gpa address =
        unit == 1 ? Gpa{page} << 16 | channel.address : Gpa{page & 0xfeu} << 16 | Gpa{channel.address} << 1;
    if (!verify) move_piece(address, done.bytes, units * unit);
    done.bytes += units * unit;
    channel.address = static_cast<uint16_t>(down ? channel.address - units : channel.address + units);
    done.terminal_count = units == channel.count + size_t{1};
    channel.count = static_cast<uint16_t>(channel.count - units);
  }
  if (!done.terminal_count) return done;
  const auto own = static_cast<uint8_t>(1u << number % kChannels);
  chip.terminal_counts |= own;
  chip.software_requests = static_cast<uint8_t>(chip.software_requests & ~own);
  if ((channel.mode & kModeAutoInit) != 0) {
    channel.address = channel.base_address;
    channel.count = channel.base_count;
  } else {
    chip.mask |= own;
  }
  return done;
}

I8237::Transfer I8237::to_memory(unsigned channel, std::span<const uint8_t> data) {
  const std::lock_guard lock(lock_);
  return move(channel, data.size(), kTransferWrite, [&](Gpa address, size_t at, size_t bytes) {
    // What is no memory swallows it, as on the bus.
    static_cast<void>(memory_.write(address, data.subspan(at, bytes)));
  });
}

I8237::Transfer I8237::from_memory(unsigned channel, std::span<uint8_t> data) {
  const std::lock_guard lock(lock_);
  return move(channel, data.size(), kTransferRead, [&](Gpa address, size_t at, size_t bytes) {
    const auto piece = data.subspan(at, bytes);
    if (!memory_.read(address, piece)) std::ranges::fill(piece, uint8_t{0xff});
  });
}

// --- state

void I8237::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  I8237V1 wire{};
  const auto& [chips, pages] = state_;
  for (size_t i = 0; i < chips.size(); ++i) {
    const auto& [channels, command, mask, terminal_counts, software_requests, requests, high_byte] = chips[i];
    for (size_t j = 0; j < channels.size(); ++j) {
      const auto& [base_address, base_count, address, count, mode] = channels[j];
      wire.counters[i * kChannels + j] = {base_address, base_count, address, count};
      wire.modes[i * kChannels + j] = mode;
    }
    wire.registers[i] = {command, mask, terminal_counts, software_requests, requests};
    wire.high_byte[i] = high_byte;
  }
  wire.pages = pages;
  save_section(writer, path(), wire);
}

void I8237::restore(StateReader& reader) {
  I8237V1 wire{};
  const auto possible = [&] {
    const bool modes = std::ranges::all_of(wire.modes, [](uint8_t mode) { return (mode & kModeChannel) == 0; });
    const bool bits = std::ranges::all_of(
        wire.registers, [](const auto& chip) { return ((chip[1] | chip[2] | chip[3] | chip[4]) & 0xf0) == 0; });
    return require(reader, modes && bits, "a DMA register has bits that do not exist");
  };
  if (!restore_section(reader, path(), wire, [&] { possible(); })) return;
  const std::lock_guard lock(lock_);
  for (size_t i = 0; i < state_.chips.size(); ++i) {
    Chip& chip = state_.chips[i];
    for (size_t j = 0; j < chip.channels.size(); ++j) {
      const auto& counters = wire.counters[i * kChannels + j];
      chip.channels[j] = {.base_address = counters[0],
                          .base_count = counters[1],
                          .address = counters[2],
                          .count = counters[3],
                          .mode = wire.modes[i * kChannels + j]};
    }
    const auto& registers = wire.registers[i];
    chip.command = registers[0];
    chip.mask = registers[1];
    chip.terminal_counts = registers[2];
    chip.software_requests = registers[3];
    chip.requests = registers[4];
    chip.high_byte = wire.high_byte[i];
  }
  state_.pages = wire.pages;
}

}  // namespace kite::devices
