// Words, texts and checksums of ATA's 512-byte data structures.
#pragma once

#include <array>
#include <cstdint>
#include <numeric>
#include <string_view>

#include "devices/ata/ata_regs.h"
#include "support/bytes.h"

namespace kite::devices::ata {

using PageBytes = std::array<uint8_t, kSectorBytes>;

inline void put_word(PageBytes& page, unsigned index, uint64_t value) {
  store(&page[size_t{2} * index], static_cast<uint16_t>(value));
}

// [ATA8-ACS] 3.3.10: the first character of a pair is in the high byte; filled up with spaces.
inline void put_text(PageBytes& page, unsigned word, size_t length, std::string_view text) {
  for (size_t i = 0; i < length; ++i) {
    const char character = i < text.size() && text[i] >= 0x20 && text[i] < 0x7f ? text[i] : ' ';
    page[size_t{2} * word + (i ^ 1)] = static_cast<uint8_t>(character);
  }
}

// Byte 511 makes the sum of all bytes 0.
inline void set_checksum(PageBytes& page) {
  const unsigned sum = std::accumulate(page.begin(), page.end() - 1, 0u);
  page[kSectorBytes - 1] = static_cast<uint8_t>(0x100 - (sum & 0xff));
}

}  // namespace kite::devices::ata
