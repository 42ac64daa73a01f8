// Packets of GDB's remote serial protocol: frames, checksums, escapes, hexadecimal digits.
// ["Debugging with GDB", appendix E.1]
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kite::gdb {

// Takes what a client sends apart, byte by byte. Everything outside of a packet that means nothing is dropped.
class PacketReader {
 public:
  static constexpr size_t kMostBytes = 0x4000;  // of a packet, as it is meant; longer ones are kDamaged

  enum class Kind : uint8_t {
    kPacket,
    kDamaged,    // wrong checksum, or too long
    kAck,        // '+'
    kNack,       // '-'
    kInterrupt,  // 0x03
  };
  struct Item {
    Kind kind = Kind::kPacket;
    std::string text = {};  // of a packet
  };
  std::optional<Item> next(uint8_t byte);
  // Between packets, as with a client that has just come.
  void restart() { state_ = State::kOutside; }

 private:
  enum class State : uint8_t { kOutside, kInside, kEscaped, kCount, kFirstDigit, kSecondDigit };
  std::optional<Item> outside(uint8_t byte);
  void inside(uint8_t byte);
  void repeat(uint8_t count);
  void append(uint8_t byte);

  State state_ = State::kOutside;
  std::string text_;
  bool fits_ = true;
  uint8_t sum_ = 0, told_sum_ = 0;
  bool digits_ = true;  // the checksum is two hexadecimal digits
};

// A packet that is ready to send.
std::string frame(std::string_view text);

std::string to_hex(std::span<const uint8_t> bytes);
inline std::string to_hex(std::string_view text) {
  return to_hex({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
}
// Nothing: `digits` are not pairs of hexadecimal digits.
std::optional<std::vector<uint8_t>> from_hex(std::string_view digits);

// The hexadecimal number that `text` begins with, which then begins behind it. Nothing: there is none, or it has more
// than 64 bits.
std::optional<uint64_t> take_number(std::string_view& text);
// Whether `text` begins with `prefix`, which is then gone.
bool take(std::string_view& text, std::string_view prefix);

}  // namespace kite::gdb
