#include "devices/ich9/ich9_smbus.h"

#include <algorithm>
#include <cassert>

#include "devices/ich9/ich9_smbus_regs.h"
#include "devices/section.h"

namespace kite::devices {

using namespace ich9_smbus_regs;

namespace {

struct Ich9SmbusV1 {
  static constexpr uint32_t kVersion = 1;
  std::array<uint8_t, 8> registers;  // status, control, command, address, data, aux control, place in the block
  std::array<uint8_t, 32> block;
  std::vector<uint8_t> eeproms, pointers;
};
template <class Codec>
void visit(Codec& codec, Ich9SmbusV1& wire) {
  codec.field(1, wire.registers);
  codec.field(2, wire.block);
  codec.field(3, wire.eeproms);
  codec.field(4, wire.pointers);
}

}  // namespace

Ich9Smbus::Ich9Smbus(std::string path, std::vector<Eeprom> eeproms)
    : PciDevice(std::move(path), {.vendor = 0x8086, .device = 0x2930, .revision = 0x02, .class_code = 0x0c0500}),
      window_(*this, &Ich9Smbus::read, &Ich9Smbus::write),
      eeproms_(std::move(eeproms)),
      eeprom_pointers_(eeproms_.size()) {
  assert(eeproms_.size() <= kMostEeproms);
  declare_bar(4, Region::io("ich9-smbus", kSmbusSize, window_, {.min_size = 1, .max_size = 1}), {.io = true});
  set_interrupt_pin(2);
  config_.writable[kHostc] = 0x07;
}

void Ich9Smbus::reset() {
  reset_config();
  {
    const std::lock_guard lock(config_lock_);
    config_.bytes[kHostc] = 0;
  }
  const std::lock_guard lock(lock_);
  state_ = State{};
  std::ranges::fill(eeprom_pointers_, uint8_t{0});
}

Ich9Smbus::Eeprom* Ich9Smbus::target() {
  const unsigned address = state_.address >> 1;
  if (address < kFirstEeprom || address >= kFirstEeprom + eeproms_.size()) return nullptr;
  return &eeproms_[address - kFirstEeprom];
}

// [ICH9] 20.2.2: START begins what SMB_CMD says with the slave that XMIT_SLVA names.
void Ich9Smbus::run_command() {
  Eeprom* const eeprom = target();
  const bool reads = (state_.address & 1) != 0;
  if (eeprom == nullptr) {
    state_.status |= kDevErr;
    return;
  }
  uint8_t& pointer = eeprom_pointers_[static_cast<size_t>(eeprom - eeproms_.data())];
  const auto next = [&pointer] { return pointer++; };  // turns over at the end
  switch (static_cast<Command>((state_.control >> kCommandShift) & 7)) {
    case kQuick: break;
    case kByte:
      if (reads)
        state_.data0 = (*eeprom)[next()];
      else
        pointer = state_.command;
      break;
    case kByteData:
    case kWordData: {
      const bool word = ((state_.control >> kCommandShift) & 7) == kWordData;
      pointer = state_.command;
      (reads ? state_.data0 : (*eeprom)[pointer]) = reads ? (*eeprom)[pointer] : state_.data0;
      ++pointer;
      if (!word) break;
      (reads ? state_.data1 : (*eeprom)[pointer]) = reads ? (*eeprom)[pointer] : state_.data1;
      ++pointer;
      break;
    }
    case kBlock: block_command(*eeprom, reads); break;
    default: state_.status |= kDevErr; return;
  }
  state_.status |= kIntr;
}

// An EEPROM knows no block counts: as many bytes as the buffer holds are read, as many as data 0 says are written.
void Ich9Smbus::block_command(Eeprom& eeprom, bool reads) {
  uint8_t at = state_.command;
  if (reads) {
    for (uint8_t& byte : state_.block) byte = eeprom[at++];
    state_.data0 = static_cast<uint8_t>(state_.block.size());
  } else {
    const size_t count = std::min<size_t>(state_.data0, state_.block.size());
    for (size_t i = 0; i < count; ++i) eeprom[at++] = state_.block[i];
  }
  state_.block_at = 0;
}

uint64_t Ich9Smbus::read(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  switch (offset) {
    case kHstSts: {
      const uint8_t status = state_.status;
      state_.status |= kInUse;  // [ICH9] 20.2.1: whoever reads a 0 has it
      return status;
    }
    case kHstCnt:
      state_.block_at = 0;  // [ICH9] 20.2.7: reading it resets the place in the buffer
      return state_.control;
    case kHstCmd: return state_.command;
    case kXmitSlva: return state_.address;
    case kHstD0: return state_.data0;
    case kHstD1: return state_.data1;
    case kHostBlockDb: {
      const uint8_t byte = state_.block[state_.block_at];
      state_.block_at = static_cast<uint8_t>((state_.block_at + 1u) % state_.block.size());
      return byte;
    }
    case kAuxCtl: return state_.aux_control;
    default: return 0;
  }
}

void Ich9Smbus::write(uint64_t offset, unsigned, uint64_t value) {
  const auto byte = static_cast<uint8_t>(value);
  const std::lock_guard lock(lock_);
  switch (offset) {
    case kHstSts: state_.status &= static_cast<uint8_t>(~byte); break;
    case kHstCnt:
      state_.control = static_cast<uint8_t>(byte & ~unsigned{kStart});
      if ((byte & kStart) != 0) run_command();
      break;
    case kHstCmd: state_.command = byte; break;
    case kXmitSlva: state_.address = byte; break;
    case kHstD0: state_.data0 = byte; break;
    case kHstD1: state_.data1 = byte; break;
    case kHostBlockDb:
      state_.block[state_.block_at] = byte;
      state_.block_at = static_cast<uint8_t>((state_.block_at + 1u) % state_.block.size());
      break;
    case kAuxCtl: state_.aux_control = byte & 0x03; break;
    default: break;
  }
  // [ICH9] 20.2.2: INTREN; the interrupt lasts until the status is cleared.
  set_intx((state_.control & kIntrEnable) != 0 && (state_.status & (kIntr | kDevErr)) != 0);
}

void Ich9Smbus::save(StateWriter& writer) {
  Ich9SmbusV1 wire{};
  {
    const std::lock_guard lock(lock_);
    const auto& [status, control, command, address, data0, data1, aux, block_at, block] = state_;
    wire.registers = {status, control, command, address, data0, data1, aux, block_at};
    wire.block = block;
    for (const Eeprom& eeprom : eeproms_) wire.eeproms.insert(wire.eeproms.end(), eeprom.begin(), eeprom.end());
    wire.pointers = eeprom_pointers_;
  }
  save_section(writer, path(), wire, [&] { save_config(writer); });
}

void Ich9Smbus::restore(StateReader& reader) {
  Ich9SmbusV1 wire{};
  const auto possible = [&] {
    const auto& [status, control, command, address, data0, data1, aux, block_at] = wire.registers;
    return require(reader, (status & ~kHstStsBits) == 0 && (control & kStart) == 0 && aux <= 3,
                   "an SMBus register has reserved bits") &&
           require(reader, block_at < wire.block.size(), "the place in the block buffer is beyond its end") &&
           require(reader,
                   wire.pointers.size() == eeproms_.size() && wire.eeproms.size() == eeproms_.size() * sizeof(Eeprom),
                   "there is another number of EEPROMs here");
  };
  if (!restore_section(reader, path(), wire, [&] {
        if (possible()) restore_config(reader);
      }))
    return;
  const std::lock_guard lock(lock_);
  const auto& r = wire.registers;
  state_ = State{.status = r[0],
                 .control = r[1],
                 .command = r[2],
                 .address = r[3],
                 .data0 = r[4],
                 .data1 = r[5],
                 .aux_control = r[6],
                 .block_at = r[7],
                 .block = wire.block};
  for (size_t i = 0; i < eeproms_.size(); ++i)
    std::copy_n(wire.eeproms.begin() + static_cast<std::ptrdiff_t>(i * sizeof(Eeprom)), sizeof(Eeprom),
                eeproms_[i].begin());
  eeprom_pointers_ = wire.pointers;
}

}  // namespace kite::devices
