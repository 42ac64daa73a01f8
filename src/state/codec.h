// The wire form of saved state: a flat little-endian byte string of numbered sections. A device converts its State to a
// versioned wire struct and streams the fields through one `visit`, so that writing and reading cannot drift apart:
//
//   struct PitStateV1 { std::array<uint16_t, 3> count; ... };
//   template <class Codec> void visit(Codec& codec, PitStateV1& s) { codec.field(1, s.count); codec.field(2, s.latch);
//   }
//
// Every field carries its number and length. A reader refuses an unknown, missing or wrong-sized field by number, so
// old and damaged states are errors with a name, never garbage. A field that is not a bool arrives with any value that
// fits its size: what the numbers mean is for the device to check.
//
//   section: u16 length and bytes of the name, u32 version, u32 length of the fields
//   field:   u16 number, u32 length, bytes
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "support/bytes.h"
#include "support/result.h"

namespace kite {

// Types that travel as their bytes: integers, enums, bool and arrays of them.
template <class T>
struct IsStateScalar : std::bool_constant<std::is_integral_v<T> || std::is_enum_v<T>> {};
template <class T, size_t N>
struct IsStateScalar<std::array<T, N>> : IsStateScalar<T> {};

// Bools, and arrays of them: on the way in, any byte but 0 and 1 is refused.
template <class T>
struct IsStateBool : std::is_same<T, bool> {};
template <class T, size_t N>
struct IsStateBool<std::array<T, N>> : IsStateBool<T> {};

inline constexpr size_t kMaxStateBytes = size_t{64} << 20;  // the longest byte field

// begin(), fields, end(), and again; fields have their place only inside a section.
class StateWriter {
 public:
  void begin(std::string_view section, uint32_t version);  // one section a device, named by its path
  void end();
  template <class T>
    requires IsStateScalar<T>::value
  void field(uint16_t number, const T& value) {
    raw(number, std::as_bytes(std::span(&value, 1)));
  }
  void field(uint16_t number, const std::vector<uint8_t>& bytes) { raw(number, std::as_bytes(std::span(bytes))); }
  [[nodiscard]] const std::vector<uint8_t>& bytes() const { return bytes_; }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  void raw(uint16_t number, std::span<const std::byte> data);
  std::vector<uint8_t> bytes_;
  size_t section_start_ = 0;  // of the open section's fields; 0 when none is open
};

// Reads what StateWriter wrote. The first error sticks and makes every later call do nothing; finish() reports it.
class StateReader {
 public:
  explicit StateReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  // Enters the next section, which must have this name; answers its version (0 after an error, and never a valid one).
  uint32_t begin(std::string_view section);
  void end();  // every field of the section must have been read
  template <class T>
    requires IsStateScalar<T>::value
  void field(uint16_t number, T& value) {
    raw(number, std::as_writable_bytes(std::span(&value, 1)), IsStateBool<T>::value ? 1 : 0xff);
  }
  void field(uint16_t number, std::vector<uint8_t>& bytes);  // any length up to 64 MiB
  // A device's own complaint ("count 70000 is above 65535"); the section's name is put before it.
  void reject(std::string message);
  [[nodiscard]] bool ok() const { return error_.empty(); }
  // The open section has fields that have not been read.
  [[nodiscard]] bool more_fields() const { return ok() && in_section_ && at_ != section_end_; }
  // The first error, if any; also one when something is left over.
  [[nodiscard]] Result<> finish() const;

 private:
  void raw(uint16_t number, std::span<std::byte> data, uint8_t largest_byte);
  // The next `size` bytes before `end`; an empty optional (and an error) when there are fewer.
  std::optional<std::span<const uint8_t>> take(size_t size, size_t end, std::string_view what);
  // Enters field `number` and answers its bytes.
  std::optional<std::span<const uint8_t>> enter_field(uint16_t number);

  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  size_t section_end_ = 0;
  bool in_section_ = false;
  std::string section_;
  std::string error_;
};

}  // namespace kite
