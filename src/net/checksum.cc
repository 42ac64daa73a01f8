#include "net/checksum.h"

#include "support/bytes.h"

namespace kite::net {

uint16_t internet_sum(std::span<const uint8_t> bytes, uint64_t before) {
  uint64_t sum = before;
  for (; bytes.size() >= 4; bytes = bytes.subspan(4)) sum += load<uint32_t>(bytes.data());
  if (!bytes.empty()) sum += load_le(bytes.data(), bytes.size());
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

}  // namespace kite::net
