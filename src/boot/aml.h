// AML, the byte code of ACPI's definition blocks, as values: each function answers the encoding of one construct, and
// constructs nest by argument. [ACPI 6.4] chapter 20.
//
//   scope("\\_SB", device("COM1", name("_HID", eisa_id("PNP0501")), ...))
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <type_traits>
#include <vector>

namespace kite::boot::aml {

// Term{a, b, ...} holds these bytes as they are; Term(n), or a bare number, is the encoding of an integer.
class Term {
 public:
  Term() = default;
  explicit Term(std::initializer_list<uint8_t> bytes) : bytes_(bytes) {}
  // Whole numbers encode themselves, so that they can stand wherever a term does.
  template <class T>
    requires(std::is_integral_v<T>)
  Term(T value) : Term(integer(static_cast<uint64_t>(value))) {}  // NOLINT(google-explicit-constructor)

  static Term integer(uint64_t value);
  Term& operator+=(const Term& other);
  Term& operator+=(uint8_t byte);
  Term& append(std::span<const uint8_t> bytes);
  // `size` (1..8) bytes, low first.
  Term& append_value(uint64_t value, unsigned size);
  [[nodiscard]] const std::vector<uint8_t>& bytes() const { return bytes_; }
  [[nodiscard]] size_t size() const { return bytes_.size(); }

 private:
  std::vector<uint8_t> bytes_;
};

template <class... Terms>
Term sequence(const Terms&... terms) {
  Term all;
  ((all += Term(terms)), ...);
  return all;
}

// --- data ---
Term path(std::string_view name);  // "\\_SB.PCI0", "^PRQA", "_HID": segments of up to four characters
Term text(std::string_view value);
Term eisa_id(std::string_view id);  // "PNP0A03"
Term uuid(std::string_view text);   // "33db4d5b-1ff7-401c-9657-7441c03dd766", as a buffer
Term buffer(std::span<const uint8_t> bytes);
Term package(std::span<const Term> elements);  // at most 255
inline Term package(std::initializer_list<Term> elements) {
  return package(std::span(elements.begin(), elements.size()));
}

// --- named objects ---
Term name(std::string_view object, const Term& value);
Term scope_of(std::string_view object, const Term& body);
Term device_of(std::string_view object, const Term& body);
Term method_of(std::string_view object, uint8_t arguments, bool serialized, const Term& body);
template <class... Terms>
Term scope(std::string_view object, const Terms&... terms) {
  return scope_of(object, sequence(terms...));
}
template <class... Terms>
Term device(std::string_view object, const Terms&... terms) {
  return device_of(object, sequence(terms...));
}
template <class... Terms>
Term method(std::string_view object, uint8_t arguments, const Terms&... terms) {
  return method_of(object, arguments, false, sequence(terms...));
}
template <class... Terms>
Term serialized_method(std::string_view object, uint8_t arguments, const Terms&... terms) {
  return method_of(object, arguments, true, sequence(terms...));
}

enum class Space : uint8_t { kMemory = 0, kIo = 1, kPciConfig = 2 };
Term operation_region(std::string_view object, Space space, uint64_t offset, uint64_t length);
// Consecutive fields of 8 bits, accessed as bytes.
Term byte_fields(std::string_view region, std::initializer_list<std::string_view> names);
// Consecutive fields of 32 bits, accessed whole.
Term dword_fields(std::string_view region, std::initializer_list<std::string_view> names);
Term dword_field_in(const Term& source, uint64_t offset, std::string_view object);  // CreateDWordField

Term mutex(std::string_view object);

// --- statements and expressions ---
Term argument(uint8_t index);
Term local(uint8_t index);
Term store(const Term& value, const Term& target);
Term bit_and(const Term& left, const Term& right);
Term bit_or(const Term& left, const Term& right, const Term& target);
Term shift_left(const Term& value, const Term& count);
Term less(const Term& left, const Term& right);
Term equal(const Term& left, const Term& right);
template <class... Terms>
Term call(std::string_view object, const Terms&... arguments) {
  return sequence(path(object), arguments...);
}
Term notify(std::string_view object, const Term& value);
Term acquire(std::string_view mutex);  // waits for as long as it takes
Term release(std::string_view mutex);
Term if_of(const Term& condition, const Term& body);
Term return_value(const Term& value);

// --- resource descriptors [ACPI 6.4] 6.4 ---
Term resource_template_of(const Term& descriptors);
template <class... Terms>
Term resource_template(const Terms&... descriptors) {
  return resource_template_of(sequence(descriptors...));
}
Term io_ports(uint16_t first, uint8_t count);                    // 16-bit decode, fixed
Term irq(uint8_t number);                                        // edge, active high, exclusive
Term level_interrupts(std::initializer_list<uint32_t> numbers);  // extended: level, active high, shared
Term fixed_memory(uint32_t first, uint32_t bytes, bool writable);
Term bus_window(uint16_t first, uint16_t last);
Term port_window(uint16_t first, uint16_t last);
Term memory_window(uint64_t first, uint64_t last, bool cacheable);  // 32 or 64 bits wide, by `last`

}  // namespace kite::boot::aml
