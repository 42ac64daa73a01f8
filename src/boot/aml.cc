#include "boot/aml.h"

#include <algorithm>
#include <array>
#include <cassert>

namespace kite::boot::aml {
namespace {

// Opcodes [ACPI 6.4] 20.3. Two-byte ones begin with kExtended.
enum Op : uint8_t {
  kZero = 0x00,
  kOne = 0x01,
  kName = 0x08,
  kByte = 0x0a,
  kWord = 0x0b,
  kDword = 0x0c,
  kString = 0x0d,
  kQword = 0x0e,
  kScope = 0x10,
  kBuffer = 0x11,
  kPackage = 0x12,
  kMethod = 0x14,
  kDualName = 0x2e,
  kMultiName = 0x2f,
  kExtended = 0x5b,
  kLocal0 = 0x60,
  kArgument0 = 0x68,
  kStore = 0x70,
  kShiftLeft = 0x79,
  kAnd = 0x7b,
  kOr = 0x7d,
  kNotify = 0x86,
  kCreateDwordField = 0x8a,
  kEqual = 0x93,
  kLess = 0x95,
  kIf = 0xa0,
  kReturn = 0xa4,
};
enum ExtendedOp : uint8_t {
  kMutex = 0x01,
  kAcquire = 0x23,
  kRelease = 0x27,
  kOperationRegion = 0x80,
  kField = 0x81,
  kDevice = 0x82,
};

constexpr uint8_t kSerialized = 1u << 3;
// Field flags [ACPI 6.4] 20.2.5.2; no lock, the rest of a unit preserved.
constexpr uint8_t kByteAccess = 1, kDwordAccess = 3;

// [ACPI 6.4] 20.2.4: the length counts itself; one byte holds 6 bits of it, more bytes 4 bits and 8 a byte.
Term package_length(size_t content) {
  if (content + 1 < 0x40) return Term{static_cast<uint8_t>(content + 1)};
  unsigned more = 1;
  while (content + 1 + more >= size_t{1} << (4 + 8 * more)) ++more;
  assert(more <= 3);
  const size_t length = content + 1 + more;
  Term encoded{static_cast<uint8_t>(more << 6 | (length & 0xf))};
  return encoded.append_value(length >> 4, more);
}

Term with_length(const Term& content) { return sequence(package_length(content.size()), content); }

Term segment(std::string_view name) {
  assert(!name.empty() && name.size() <= 4);
  Term encoded;
  for (size_t i = 0; i < 4; ++i) encoded += static_cast<uint8_t>(i < name.size() ? name[i] : '_');
  return encoded;
}

Term fields(std::string_view region, uint8_t access, uint8_t bits, std::initializer_list<std::string_view> names) {
  Term content = sequence(path(region), Term{access});
  for (const std::string_view field : names) content += sequence(segment(field), Term{bits});
  return sequence(Term{kExtended, kField}, with_length(content));
}

// A large resource descriptor [ACPI 6.4] 6.4.3: type, length, content.
Term large(uint8_t type, const Term& content) {
  Term encoded{type};
  return encoded.append_value(content.size(), 2) += content;
}

// [ACPI 6.4] 6.4.3.5: address space descriptors; all here are producers with fixed ends.
enum class Resource : uint8_t { kMemory = 0, kIo = 1, kBus = 2 };
Term window(Resource resource, uint8_t flags, uint64_t first, uint64_t last, unsigned bytes) {
  constexpr uint8_t kFixedEnds = 0x0c;
  Term content{static_cast<uint8_t>(resource), kFixedEnds, flags};
  for (const uint64_t value :
       {uint64_t{0} /* granularity */, first, last, uint64_t{0} /* translation */, last - first + 1})
    content.append_value(value, bytes);
  return large(bytes == 2 ? 0x88 : bytes == 4 ? 0x87 : 0x8a, content);
}

}  // namespace

Term& Term::operator+=(const Term& other) { return append(other.bytes_); }

Term& Term::operator+=(uint8_t byte) {
  bytes_.push_back(byte);
  return *this;
}

Term& Term::append(std::span<const uint8_t> bytes) {
  const std::vector<uint8_t> copy(bytes.begin(), bytes.end());  // the source may be this term's own
  bytes_.insert(bytes_.end(), copy.begin(), copy.end());
  return *this;
}

Term& Term::append_value(uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) bytes_.push_back(static_cast<uint8_t>(value >> (8 * i)));
  return *this;
}

Term Term::integer(uint64_t value) {
  if (value <= 1) return Term{value == 0 ? kZero : kOne};
  if (value <= 0xff) return Term{kByte}.append_value(value, 1);
  if (value <= 0xffff) return Term{kWord}.append_value(value, 2);
  if (value <= 0xffffffff) return Term{kDword}.append_value(value, 4);
  return Term{kQword}.append_value(value, 8);
}

Term path(std::string_view name) {
  Term prefix;
  while (!name.empty() && (name.front() == '\\' || name.front() == '^')) {
    prefix += static_cast<uint8_t>(name.front());
    name.remove_prefix(1);
  }
  Term segments;
  unsigned count = 0;
  while (!name.empty()) {
    const size_t dot = std::min(name.find('.'), name.size());
    segments += segment(name.substr(0, dot));
    name.remove_prefix(std::min(dot + 1, name.size()));
    ++count;
  }
  if (count == 0) return prefix += kZero;
  if (count == 2) prefix += kDualName;
  if (count > 2) (prefix += kMultiName) += static_cast<uint8_t>(count);
  return prefix += segments;
}

Term text(std::string_view value) {
  Term encoded{kString};
  for (const char c : value) encoded += static_cast<uint8_t>(c);
  return encoded += uint8_t{0};
}

// [ACPI 6.4] 19.3.4: three letters of 5 bits, four hexadecimal digits, stored high byte first.
Term eisa_id(std::string_view id) {
  assert(id.size() == 7);
  uint32_t packed = 0;
  for (const char c : id.substr(0, 3)) packed = packed << 5 | (static_cast<uint32_t>(c - '@') & 0x1f);
  for (const char c : id.substr(3)) packed = packed << 4 | static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'A' + 10);
  return Term{kDword}.append_value(__builtin_bswap32(packed), 4);
}

// [ACPI 6.4] 19.6.142: the first three groups are little-endian.
Term uuid(std::string_view text) {
  constexpr std::array<size_t, 16> kPlaces = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
  assert(text.size() == 36);
  const auto digit = [text](size_t at) { return text[at] <= '9' ? text[at] - '0' : (text[at] | 0x20) - 'a' + 10; };
  std::array<uint8_t, 16> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(digit(kPlaces[i]) << 4 | digit(kPlaces[i] + 1));
  return buffer(bytes);
}

Term buffer(std::span<const uint8_t> bytes) {
  return sequence(Term{kBuffer}, with_length(sequence(bytes.size(), Term{}.append(bytes))));
}

Term package(std::span<const Term> elements) {
  assert(elements.size() <= 255);
  Term content{static_cast<uint8_t>(elements.size())};
  for (const Term& element : elements) content += element;
  return sequence(Term{kPackage}, with_length(content));
}

Term name(std::string_view object, const Term& value) { return sequence(Term{kName}, path(object), value); }

Term scope_of(std::string_view object, const Term& body) {
  return sequence(Term{kScope}, with_length(sequence(path(object), body)));
}

Term device_of(std::string_view object, const Term& body) {
  return sequence(Term{kExtended, kDevice}, with_length(sequence(path(object), body)));
}

Term method_of(std::string_view object, uint8_t arguments, bool serialized, const Term& body) {
  const Term flags{static_cast<uint8_t>(arguments | (serialized ? kSerialized : 0))};
  return sequence(Term{kMethod}, with_length(sequence(path(object), flags, body)));
}

Term operation_region(std::string_view object, Space space, uint64_t offset, uint64_t length) {
  return sequence(Term{kExtended, kOperationRegion}, path(object), Term{static_cast<uint8_t>(space)}, offset, length);
}

Term byte_fields(std::string_view region, std::initializer_list<std::string_view> names) {
  return fields(region, kByteAccess, 8, names);
}

Term dword_fields(std::string_view region, std::initializer_list<std::string_view> names) {
  return fields(region, kDwordAccess, 32, names);
}

Term dword_field_in(const Term& source, uint64_t offset, std::string_view object) {
  return sequence(Term{kCreateDwordField}, source, offset, path(object));
}

Term mutex(std::string_view object) { return sequence(Term{kExtended, kMutex}, path(object), Term{0}); }

Term argument(uint8_t index) { return Term{static_cast<uint8_t>(kArgument0 + index)}; }
Term local(uint8_t index) { return Term{static_cast<uint8_t>(kLocal0 + index)}; }
Term store(const Term& value, const Term& target) { return sequence(Term{kStore}, value, target); }
Term bit_and(const Term& left, const Term& right) { return sequence(Term{kAnd}, left, right, Term{kZero}); }
Term bit_or(const Term& left, const Term& right, const Term& target) {
  return sequence(Term{kOr}, left, right, target);
}
Term shift_left(const Term& value, const Term& count) { return sequence(Term{kShiftLeft}, value, count, Term{kZero}); }
Term less(const Term& left, const Term& right) { return sequence(Term{kLess}, left, right); }
Term equal(const Term& left, const Term& right) { return sequence(Term{kEqual}, left, right); }
Term notify(std::string_view object, const Term& value) { return sequence(Term{kNotify}, path(object), value); }
Term acquire(std::string_view mutex) {
  constexpr uint16_t kForever = 0xffff;
  return sequence(Term{kExtended, kAcquire}, path(mutex)).append_value(kForever, 2);
}
Term release(std::string_view mutex) { return sequence(Term{kExtended, kRelease}, path(mutex)); }
Term if_of(const Term& condition, const Term& body) {
  return sequence(Term{kIf}, with_length(sequence(condition, body)));
}
Term return_value(const Term& value) { return sequence(Term{kReturn}, value); }

Term resource_template_of(const Term& descriptors) {
  // [ACPI 6.4] 6.4.2.9: the end tag; a checksum of 0 is taken as right.
  return buffer(sequence(descriptors, Term{0x79, 0x00}).bytes());
}

Term io_ports(uint16_t first, uint8_t count) {
  Term encoded{0x47, 0x01};
  return encoded.append_value(first, 2).append_value(first, 2) += Term{1, count};
}

Term irq(uint8_t number) { return Term{0x22}.append_value(uint64_t{1} << number, 2); }

Term level_interrupts(std::initializer_list<uint32_t> numbers) {
  constexpr uint8_t kConsumer = 1, kShared = 8;  // level-triggered and active high are 0
  Term content{kConsumer | kShared, static_cast<uint8_t>(numbers.size())};
  for (const uint32_t number : numbers) content.append_value(number, 4);
  return large(0x89, content);
}

Term fixed_memory(uint32_t first, uint32_t bytes, bool writable) {
  Term content{static_cast<uint8_t>(writable ? 1 : 0)};
  return large(0x86, content.append_value(first, 4).append_value(bytes, 4));
}

Term bus_window(uint16_t first, uint16_t last) { return window(Resource::kBus, 0, first, last, 2); }

Term port_window(uint16_t first, uint16_t last) {
  constexpr uint8_t kEntireRange = 3;
  return window(Resource::kIo, kEntireRange, first, last, 2);
}

Term memory_window(uint64_t first, uint64_t last, bool cacheable) {
  constexpr uint8_t kReadWrite = 1, kCacheable = 2;
  return window(Resource::kMemory, static_cast<uint8_t>(kReadWrite | (cacheable ? kCacheable : 0)), first, last,
                last <= UINT32_MAX ? 4 : 8);
}

}  // namespace kite::boot::aml
