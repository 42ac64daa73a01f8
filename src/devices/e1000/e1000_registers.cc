#include "devices/e1000/e1000_registers.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "support/bytes.h"

namespace kite::devices {

using namespace e1000;

namespace {

// `count` registers in a row, `step` bytes apart. `own` are bits that the card sets by itself.
struct Row {
  uint32_t offset, writable, reset = 0, own = 0, count = 1, step = 4;
};
constexpr uint32_t kAll = 0xffffffff, kLow = 0xffff, kRingBytes = 0x000fff80, kBaseLow = 0xfffffff0;
constexpr Row kRows[] = {
    // 13.4.1: SDP pins of the usual wiring, 1000 Mbit/s, link up as the EEPROM asks.
    {CTRL, 0xfbfc1be9, 0x00140240},
    // 13.4.2: reserved bits as drivers know them from this card.
    {STATUS, 0, 0x80080400, kFullDuplex | kLinkUp | kSpeed | kDetectedSpeed},
    {EECD, kEepromClock | kEepromSelect | kEepromIn | kFlashWrite | kEepromRequest, kFlashWriteOff},
    {EERD, 0, 0, kAll},
    {CTRL_EXT, 0x00028ff0},
    {MDIC, 0, 0, kAll},
    {FCAL, kAll},
    {FCAH, kLow},
    {FCT, kLow},
    {VET, kLow, 0x8100},
    {ICR, 0, 0, kCauses},
    {ITR, kLow},
    {IMS, 0, 0, kCauses},
    {RCTL, 0x06dfb3fe},
    {FCTTV, kLow},
    {TXCW, 0xc000ffff},
    {TCTL, 0x03fffffa},
    {TIPG, 0x3fffffff},
    {AIFS, kLow},
    {LEDCTL, 0xcfcfcfcf, 0x00000602},
    {PBA, 0x0000007f, 0x00100030, 0x007f0000},  // 13.4.16: 64 KiB in all
    {FCRTL, 0x8000fff8},
    {FCRTH, 0x8000fff8},
    {RDBAL, kBaseLow},
    {RDBAH, kAll},
    {RDLEN, kRingBytes},
    {RDH, kLow},
    {RDT, kLow},
    {RDTR, kLow},
    {RXDCTL, 0x013f3f3f},
    {RADV, kLow},
    {RSRPD, 0x00000fff},
    {TXDMAC, 1},
    {TDBAL, kBaseLow},
    {TDBAH, kAll},
    {TDLEN, kRingBytes},
    {TDH, kLow},
    {TDT, kLow},
    {TIDV, kLow},
    {TXDCTL, 0xff3f3f3f},
    {TADV, kLow},
    {TSPMT, kAll},
    {kStatistics, 0, 0, kAll, (kStatisticsEnd - kStatistics) / 4},
    {RXCSUM, kChecksumStart | kCheckIp | kCheckTcpUdp},
    {MTA, kAll, 0, 0, kTableWords},
    {RAL, kAll, 0, 0, kAddresses, 8},
    {RAH, 0x8003ffff, 0, 0, kAddresses, 8},
    {VFTA, kAll, 0, 0, kTableWords},
    // Wake-up and management filters: they can be set, but this card never sleeps and has no management unit.
    {WUC, 0x0000000d},
    {WUFC, 0x000f80ff},
    {MANC, 0x00ffff3f},
    {IPAV, 0x0001000f},
    {IP4AT, kAll, 0, 0, 4, 8},
    {IP6AT, kAll, 0, 0, 4},
};

struct Masks {
  E1000Registers::Words writable{}, possible{}, reset{};
};
constexpr Masks make_masks() {
  Masks masks;
  for (const Row& row : kRows)
    for (uint32_t i = 0; i < row.count; ++i) {
      const uint32_t at = (row.offset + i * row.step) / sizeof(uint32_t);
      masks.writable[at] = row.writable;
      masks.possible[at] = row.writable | row.own | row.reset;
      masks.reset[at] = row.reset;
    }
  return masks;
}
constexpr Masks kMasks = make_masks();

constexpr uint32_t kMostCount = std::numeric_limits<uint32_t>::max();

}  // namespace

void E1000Registers::reset() { words_ = kMasks.reset; }

void E1000Registers::write(uint32_t offset, uint32_t value) {
  const uint32_t writable = kMasks.writable[offset / sizeof(uint32_t)];
  (*this)[offset] = ((*this)[offset] & ~writable) | (value & writable);
}

void E1000Registers::set_mac(const net::MacAddress& mac) {
  (*this)[RAL] = load<uint32_t>(mac.data());
  (*this)[RAH] = load<uint16_t>(mac.data() + sizeof(uint32_t)) | kAddressValid;
}

net::MacAddress E1000Registers::mac(uint32_t entry) const {
  net::MacAddress mac{};
  store(mac.data(), (*this)[RAL + entry * 8]);
  store(mac.data() + sizeof(uint32_t), static_cast<uint16_t>((*this)[RAH + entry * 8]));
  return mac;
}

void E1000Registers::count(uint32_t offset, uint32_t more) {
  uint32_t& value = (*this)[offset];
  value = more > kMostCount - value ? kMostCount : value + more;
}

void E1000Registers::count_bytes(uint32_t low, uint64_t more) {
  const uint64_t before = pair(low), most = std::numeric_limits<uint64_t>::max();
  const uint64_t value = more > most - before ? most : before + more;
  (*this)[low] = static_cast<uint32_t>(value);
  (*this)[low + 4] = static_cast<uint32_t>(value >> 32);
}

void E1000Registers::count_length(uint32_t first, size_t bytes) {
  constexpr size_t kMost[] = {64, 127, 255, 511, 1023};
  const auto kind = static_cast<uint32_t>(std::ranges::lower_bound(kMost, bytes) - std::begin(kMost));
  count(first + kind * 4);
}

uint32_t E1000Registers::take_statistic(uint32_t offset) {
  const uint32_t value = std::exchange((*this)[offset], 0);
  // 13.7: the lower half of a byte count is read first, and the upper one clears both.
  for (const uint32_t low : {GORCL, GOTCL, TORL, TOTL}) {
    if (offset == low) (*this)[low] = value;
    if (offset == low + 4) (*this)[low] = 0;
  }
  return value;
}

bool E1000Registers::possible(const Words& words) {
  return std::ranges::equal(words, kMasks.possible,
                            [](uint32_t word, uint32_t possible) { return (word & ~possible) == 0; });
}

}  // namespace kite::devices
