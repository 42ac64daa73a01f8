// The wire form of saved state: a flat little-endian byte string of numbered sections. A device converts its State to a
// versioned wire struct and streams the fields through one `visit`, so that writing and reading cannot drift apart:
//
//   struct PitStateV1 { std::array<uint16_t, 3> count; ... };
//   template <class Codec> void visit(Codec& codec, PitStateV1& s) { codec.field(1, s.count); codec.field(2, s.latch); }
//
// Every field carries its number and length. A reader refuses an unknown, missing or wrong-sized field by number, so old
// and damaged states are errors with a name, never garbage.
#pragma once

#include <array>
#include <cstdint>
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
  size_t section_start_ = 0;
};

// Reads what StateWriter wrote. The first error sticks and makes every later call do nothing; finish() reports it.
class StateReader {
 public:
  explicit StateReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  // Enters the next section, which must have this name; answers its version (0 after an error).
  uint32_t begin(std::string_view section);
  void end();  // every field of the section must have been read
  template <class T>
    requires IsStateScalar<T>::value
  void field(uint16_t number, T& value) {
    raw(number, std::as_writable_bytes(std::span(&value, 1)));
  }
  void field(uint16_t number, std::vector<uint8_t>& bytes);  // any length up to 64 MiB
  // A device's own complaint ("count 70000 is above 65535").
  void reject(std::string message);
  [[nodiscard]] bool ok() const { return error_.empty(); }
  [[nodiscard]] Result<> finish() const;

 private:
  void raw(uint16_t number, std::span<std::byte> data);
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  size_t section_end_ = 0;
  std::string section_;
  std::string error_;
};

}  // namespace kite
