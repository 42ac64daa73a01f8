#include "devices/e1000/e1000_eeprom.h"

#include <algorithm>

#include "devices/e1000/e1000_regs.h"
#include "support/bytes.h"

namespace kite::devices {

namespace {

// 5.6: words of the EEPROM. Control word 1 is valid (01 on top), with identifiers to be loaded.
constexpr size_t kControl1 = 0x0a, kSubsystem = 0x0b, kSubsystemVendor = 0x0c, kDevice = 0x0d, kVendor = 0x0e,
                 kControl2 = 0x0f, kUsed = 0x30, kChecksum = 0x3f;
constexpr uint16_t kWholeSum = 0xbaba;  // 5.6.35: of all words

// A start bit, an opcode of two bits, an address of six; a write goes on with sixteen.
constexpr uint8_t kCommandBits = 9, kWriteBits = 25, kReading = 0xff, kDataBits = 16;
constexpr uint32_t kRead = 2, kWrite = 1, kErase = 3, kOther = 0;
// Of the opcode 0, by the upper two bits of the address.
constexpr uint32_t kDisable = 0, kWriteAll = 1, kEraseAll = 2, kEnable = 3;
constexpr uint16_t kErased = 0xffff;

}  // namespace

E1000Eeprom::E1000Eeprom(const net::MacAddress& mac) {
  auto& words = state_.words;
  std::fill(words.begin() + kUsed, words.end(), kErased);
  for (size_t i = 0; i < mac.size() / 2; ++i) words[i] = load<uint16_t>(&mac[i * 2]);
  words[kControl1] = 0x6403;
  words[kSubsystem] = words[kDevice] = e1000::kDeviceId;
  words[kSubsystemVendor] = words[kVendor] = e1000::kVendorId;
  words[kControl2] = 0x3040;
  uint16_t sum = 0;
  for (size_t i = 0; i < kChecksum; ++i) sum = static_cast<uint16_t>(sum + words[i]);
  words[kChecksum] = static_cast<uint16_t>(kWholeSum - sum);
}

net::MacAddress E1000Eeprom::mac() const {
  net::MacAddress mac{};
  for (size_t i = 0; i < mac.size() / 2; ++i) store(&mac[i * 2], state_.words[i]);
  return mac;
}

bool E1000Eeprom::possible(const State& state) {
  return (state.bits < kWriteBits || state.bits == kReading) && state.address < kWords && state.left <= kDataBits;
}

bool E1000Eeprom::drive(bool select, bool clock, bool in) {
  const bool rises = clock && !state_.clock;
  state_.clock = clock;
  if (select != state_.selected) {
    // A write that was given has been done by the time software asks: DO says ready.
    state_.selected = select;
    state_.shift = 0;
    state_.bits = 0;
    state_.out = true;
  } else if (select && rises) {
    state_.bits == kReading ? put_bit() : take_bit(in);
  }
  return state_.out;
}

void E1000Eeprom::take_bit(bool in) {
  if (state_.bits == 0 && !in) return;  // what comes before the start bit counts for nothing
  state_.shift = state_.shift << 1 | (in ? 1 : 0);
  ++state_.bits;
  const uint32_t opcode = state_.bits < kCommandBits ? 0 : state_.shift >> (state_.bits - 3) & 3;
  if (state_.bits == kCommandBits) {
    const uint32_t address = state_.shift & (kWords - 1);
    const bool with_data = opcode == kWrite || (opcode == kOther && address >> 4 == kWriteAll);
    if (opcode == kRead) {
      state_.bits = kReading;
      state_.address = static_cast<uint8_t>(address);
      state_.left = kDataBits;
      state_.out = false;  // the bit before the first one
    } else if (!with_data) {
      execute();
    }
  } else if (state_.bits == kWriteBits) {
    execute();
  }
}

// Word after word for as long as software clocks.
void E1000Eeprom::put_bit() {
  if (state_.left == 0) {
    state_.address = static_cast<uint8_t>((state_.address + 1) % kWords);
    state_.left = kDataBits;
  }
  --state_.left;
  state_.out = (state_.words[state_.address] >> state_.left & 1) != 0;
}

void E1000Eeprom::execute() {
  const uint32_t command = state_.bits == kWriteBits ? state_.shift >> kDataBits : state_.shift;
  const auto data = static_cast<uint16_t>(state_.shift);
  const uint32_t opcode = command >> 6 & 3, address = command & (kWords - 1), kind = address >> 4;
  state_.shift = 0;
  state_.bits = 0;
  if (opcode == kOther && (kind == kEnable || kind == kDisable)) {
    state_.writable = kind == kEnable;
  } else if (!state_.writable) {
    return;
  } else if (opcode == kWrite) {
    state_.words[address] = data;
  } else if (opcode == kErase) {
    state_.words[address] = kErased;
  } else {
    state_.words.fill(kind == kEraseAll ? kErased : data);
  }
}

}  // namespace kite::devices
