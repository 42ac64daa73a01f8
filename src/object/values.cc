// Numbers, sizes and switches as they are written on command lines.
#include <algorithm>
#include <array>
#include <limits>

#include "object/object_type.h"

namespace kite {
namespace {

// The value of a digit in `base` (8, 10 or 16), or -1.
int digit_value(char c, unsigned base) {
  int value = -1;
  if (c >= '0' && c <= '9') value = c - '0';
  if (c >= 'a' && c <= 'f') value = c - 'a' + 10;
  if (c >= 'A' && c <= 'F') value = c - 'A' + 10;
  return value < static_cast<int>(base) ? value : -1;
}

struct Digits {
  uint64_t value = 0;
  size_t count = 0;  // digits that were read; 0 when there is no number
  bool overflow = false;
};

Digits read_digits(std::string_view text, unsigned base) {
  Digits digits;
  for (const char c : text) {
    const int value = digit_value(c, base);
    if (value < 0) break;
    digits.overflow |= __builtin_mul_overflow(digits.value, uint64_t{base}, &digits.value);
    digits.overflow |= __builtin_add_overflow(digits.value, static_cast<uint64_t>(value), &digits.value);
    digits.count += 1;
  }
  return digits;
}

bool has_hex_prefix(std::string_view text) { return text.starts_with("0x") || text.starts_with("0X"); }

// The factor of a unit's letter; 0 for an unknown one.
uint64_t unit_factor(char letter) {
  constexpr std::string_view kUnits = "bkmgtpe";
  const char lower = letter >= 'A' && letter <= 'Z' ? static_cast<char>(letter - 'A' + 'a') : letter;
  const size_t at = kUnits.find(lower);
  return at == std::string_view::npos ? 0 : uint64_t{1} << (10 * at);
}

Failure bad_size(std::string_view text) {
  return fail("'{}' is not a size; write bytes, or a number with one of K, M, G, T, P, E, as in 512M or 1.5G", text);
}
Failure big_size(std::string_view text) { return fail("'{}' is too large for a size of 64 bits", text); }

// The part after the point, of `unit` bytes, rounded down.
uint64_t fraction_bytes(std::string_view digits, uint64_t unit) {
  constexpr size_t kMostDigits = 18;  // more do not change a byte
  uint64_t numerator = 0;
  uint64_t denominator = 1;
  for (const char c : digits.substr(0, kMostDigits)) {
    numerator = numerator * 10 + static_cast<uint64_t>(c - '0');
    denominator *= 10;
  }
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>(Wide{numerator} * unit / denominator);
}

}  // namespace

bool valid_id(std::string_view id) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  return !id.empty() && letter(id.front()) && std::ranges::all_of(id, [letter](char c) {
    return letter(c) || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
  });
}

Result<uint64_t> parse_size(std::string_view text, uint64_t default_unit) {
  const bool hex = has_hex_prefix(text);
  std::string_view rest = hex ? text.substr(2) : text;
  const Digits whole = read_digits(rest, hex ? 16 : 10);
  if (whole.count == 0) return bad_size(text);
  rest.remove_prefix(whole.count);
  std::string_view fraction;
  if (!hex && rest.starts_with('.')) {
    const size_t digits = read_digits(rest.substr(1), 10).count;
    if (digits == 0) return bad_size(text);
    fraction = rest.substr(1, digits);
    rest.remove_prefix(1 + digits);
  }
  if (rest.size() > 1) return bad_size(text);
  const uint64_t unit = rest.empty() ? default_unit : unit_factor(rest.front());
  if (unit == 0 || (unit == 1 && !fraction.empty())) return bad_size(text);
  uint64_t bytes = 0;
  if (whole.overflow || __builtin_mul_overflow(whole.value, unit, &bytes)) return big_size(text);
  if (__builtin_add_overflow(bytes, fraction_bytes(fraction, unit), &bytes)) return big_size(text);
  return bytes;
}

Result<uint64_t> parse_unsigned(std::string_view text) {
  const bool hex = has_hex_prefix(text);
  const bool octal = !hex && text.size() > 1 && text.front() == '0';
  const std::string_view rest = hex ? text.substr(2) : text;
  const Digits digits = read_digits(rest, hex ? 16 : octal ? 8 : 10);
  if (digits.count == 0 || digits.count != rest.size()) return fail("'{}' is not a whole number", text);
  if (digits.overflow) return fail("'{}' is too large for a number of 64 bits", text);
  return digits.value;
}

Result<int64_t> parse_signed(std::string_view text) {
  const bool negative = text.starts_with('-');
  const auto magnitude = parse_unsigned(negative ? text.substr(1) : text);
  if (!magnitude) return fail("'{}' is not a whole number of 64 bits", text);
  constexpr uint64_t kMost = std::numeric_limits<int64_t>::max();
  if (*magnitude > kMost + (negative ? 1 : 0)) return fail("'{}' is too large for a number of 64 bits", text);
  return static_cast<int64_t>(negative ? uint64_t{0} - *magnitude : *magnitude);
}

Result<bool> parse_bool(std::string_view text) {
  constexpr std::array<std::string_view, 4> kTrue{"on", "yes", "true", "y"};
  constexpr std::array<std::string_view, 4> kFalse{"off", "no", "false", "n"};
  if (std::ranges::find(kTrue, text) != kTrue.end()) return true;
  if (std::ranges::find(kFalse, text) != kFalse.end()) return false;
  return fail("'{}' is neither on nor off", text);
}

}  // namespace kite
