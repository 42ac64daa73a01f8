#include "gdb/packet.h"

#include <fmt/format.h>

#include <charconv>

namespace kite::gdb {

namespace {

constexpr uint8_t kStart = '$', kEnd = '#', kEscape = '}', kRun = '*', kInterruptByte = 3, kEscapeBit = 0x20;

std::optional<uint8_t> digit(uint8_t byte) {
  if (byte >= '0' && byte <= '9') return static_cast<uint8_t>(byte - '0');
  if (byte >= 'a' && byte <= 'f') return static_cast<uint8_t>(byte - 'a' + 10);
  if (byte >= 'A' && byte <= 'F') return static_cast<uint8_t>(byte - 'A' + 10);
  return std::nullopt;
}

}  // namespace

std::optional<PacketReader::Item> PacketReader::outside(uint8_t byte) {
  switch (byte) {
    case '+': return Item{.kind = Kind::kAck};
    case '-': return Item{.kind = Kind::kNack};
    case kInterruptByte: return Item{.kind = Kind::kInterrupt};
    case kStart:
      state_ = State::kInside;
      text_.clear();
      fits_ = digits_ = true;
      sum_ = 0;
      return std::nullopt;
    default: return std::nullopt;
  }
}

void PacketReader::append(uint8_t byte) {
  fits_ = fits_ && text_.size() < kMostBytes;
  if (fits_) text_ += static_cast<char>(byte);
}

// The last byte is there `count` - 29 times more.
void PacketReader::repeat(uint8_t count) {
  constexpr uint8_t kLeast = 29;
  if (text_.empty() || count < kLeast) fits_ = false;
  for (uint8_t left = static_cast<uint8_t>(count - kLeast); fits_ && left > 0; --left)
    append(static_cast<uint8_t>(text_.back()));
}

void PacketReader::inside(uint8_t byte) {
  sum_ = static_cast<uint8_t>(sum_ + byte);
  if (state_ == State::kInside && byte == kEscape) {
    state_ = State::kEscaped;
  } else if (state_ == State::kInside && byte == kRun) {
    state_ = State::kCount;
  } else {
    if (state_ == State::kCount)
      repeat(byte);
    else
      append(state_ == State::kEscaped ? byte ^ kEscapeBit : byte);
    state_ = State::kInside;
  }
}

std::optional<PacketReader::Item> PacketReader::next(uint8_t byte) {
  switch (state_) {
    case State::kOutside: return outside(byte);
    case State::kInside:
    case State::kEscaped:
    case State::kCount:
      if (byte == kStart) return outside(byte);  // the end of the one before is lost
      if (byte == kEnd)
        state_ = State::kFirstDigit;
      else
        inside(byte);
      return std::nullopt;
    case State::kFirstDigit:
      digits_ = digit(byte).has_value();
      told_sum_ = static_cast<uint8_t>(digit(byte).value_or(0) << 4);
      state_ = State::kSecondDigit;
      return std::nullopt;
    case State::kSecondDigit: break;
  }
  state_ = State::kOutside;
  digits_ = digits_ && digit(byte).has_value();
  told_sum_ = static_cast<uint8_t>(told_sum_ | digit(byte).value_or(0));
  if (!fits_ || !digits_ || told_sum_ != sum_) return Item{.kind = Kind::kDamaged};
  return Item{.kind = Kind::kPacket, .text = std::move(text_)};
}

std::string frame(std::string_view text) {
  std::string packet(1, kStart);
  uint8_t sum = 0;
  const auto put = [&](uint8_t byte) {
    packet += static_cast<char>(byte);
    sum = static_cast<uint8_t>(sum + byte);
  };
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const bool escaped = byte == kStart || byte == kEnd || byte == kEscape || byte == kRun;
    if (escaped) put(kEscape);
    put(escaped ? byte ^ kEscapeBit : byte);
  }
  return packet + fmt::format("#{:02x}", sum);
}

std::string to_hex(std::span<const uint8_t> bytes) { return fmt::format("{:02x}", fmt::join(bytes, "")); }

std::optional<std::vector<uint8_t>> from_hex(std::string_view digits) {
  if (digits.size() % 2 != 0) return std::nullopt;
  std::vector<uint8_t> bytes;
  bytes.reserve(digits.size() / 2);
  for (size_t at = 0; at < digits.size(); at += 2) {
    const auto high = digit(static_cast<uint8_t>(digits[at])), low = digit(static_cast<uint8_t>(digits[at + 1]));
    if (!high || !low) return std::nullopt;
    bytes.push_back(static_cast<uint8_t>(*high << 4 | *low));
  }
  return bytes;
}

std::optional<uint64_t> take_number(std::string_view& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return value;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

}  // namespace kite::gdb
