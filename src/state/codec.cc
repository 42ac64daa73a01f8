#include "state/codec.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace kite {
namespace {

constexpr size_t kMaxName = 1024;

template <class T>
void append(std::vector<uint8_t>& bytes, T value) {
  bytes.resize(bytes.size() + sizeof value);
  store(bytes.data() + bytes.size() - sizeof value, value);
}

// A name out of a state that may be damaged, fit for a message.
std::string printable(std::span<const uint8_t> name) {
  constexpr size_t kLongest = 80;
  std::string text;
  for (const uint8_t byte : name.first(std::min(name.size(), kLongest))) {
    text += byte >= 0x20 && byte < 0x7f ? static_cast<char>(byte) : '?';
  }
  return text;
}

}  // namespace

void StateWriter::begin(std::string_view section, uint32_t version) {
  assert(section_start_ == 0 && version != 0 && section.size() <= kMaxName);
  append(bytes_, static_cast<uint16_t>(section.size()));
  bytes_.insert(bytes_.end(), section.begin(), section.end());
  append(bytes_, version);
  append(bytes_, uint32_t{0});  // end() writes the length
  section_start_ = bytes_.size();
}

void StateWriter::end() {
  assert(section_start_ != 0);
  const size_t length = bytes_.size() - section_start_;
  assert(length <= UINT32_MAX);
  store(bytes_.data() + section_start_ - sizeof(uint32_t), static_cast<uint32_t>(length));
  section_start_ = 0;
}

void StateWriter::raw(uint16_t number, std::span<const std::byte> data) {
  assert(section_start_ != 0 && data.size() <= kMaxStateBytes);
  append(bytes_, number);
  append(bytes_, static_cast<uint32_t>(data.size()));
  const size_t at = bytes_.size();
  bytes_.resize(at + data.size());
  if (!data.empty()) std::memcpy(bytes_.data() + at, data.data(), data.size());
}

std::optional<std::span<const uint8_t>> StateReader::take(size_t size, size_t end, std::string_view what) {
  if (!ok()) return std::nullopt;
  if (end - at_ < size) {
    reject(fmt::format("the saved state ends inside {}", what));
    return std::nullopt;
  }
  at_ += size;
  return bytes_.subspan(at_ - size, size);
}

uint32_t StateReader::begin(std::string_view section) {
  if (!ok()) return 0;
  if (in_section_) {
    reject(fmt::format("section '{}' begins inside another", section));
    return 0;
  }
  section_ = section;
  if (at_ == bytes_.size()) {
    reject("the saved state has no such section");
    return 0;
  }
  const auto length = take(sizeof(uint16_t), bytes_.size(), "a section's name");
  if (!length) return 0;
  const auto name = take(load<uint16_t>(length->data()), bytes_.size(), "a section's name");
  if (!name) return 0;
  if (!std::ranges::equal(*name, section, [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
    reject(fmt::format("the saved state has the section '{}' in this place", printable(*name)));
    return 0;
  }
  const auto header = take(2 * sizeof(uint32_t), bytes_.size(), "a section's header");
  if (!header) return 0;
  const uint32_t version = load<uint32_t>(header->data());
  const uint32_t fields = load<uint32_t>(header->data() + sizeof version);
  if (version == 0) reject("version 0 does not exist");
  if (fields > bytes_.size() - at_) reject(fmt::format("the saved state ends inside this section of {} bytes", fields));
  if (!ok()) return 0;
  section_end_ = at_ + fields;
  in_section_ = true;
  return version;
}

void StateReader::end() {
  if (!ok()) return;
  if (!in_section_) return reject("a section ends that did not begin");
  if (at_ != section_end_) {
    const auto number = take(sizeof(uint16_t), section_end_, "a field's number");
    if (number) reject(fmt::format("unknown field {}", load<uint16_t>(number->data())));
    return;
  }
  in_section_ = false;
  section_.clear();
}

std::optional<std::span<const uint8_t>> StateReader::enter_field(uint16_t number) {
  if (!ok()) return std::nullopt;
  if (!in_section_ || at_ == section_end_) {
    reject(fmt::format("field {} is missing", number));
    return std::nullopt;
  }
  const std::string what = fmt::format("field {}", number);
  const auto header = take(sizeof(uint16_t) + sizeof(uint32_t), section_end_, what);
  if (!header) return std::nullopt;
  if (const uint16_t found = load<uint16_t>(header->data()); found != number) {
    reject(fmt::format("field {} stands where field {} is expected", found, number));
    return std::nullopt;
  }
  return take(load<uint32_t>(header->data() + sizeof(uint16_t)), section_end_, what);
}

void StateReader::raw(uint16_t number, std::span<std::byte> data, uint8_t largest_byte) {
  const auto found = enter_field(number);
  if (!found) return;
  if (found->size() != data.size()) {
    return reject(fmt::format("field {} has {} bytes; {} are expected", number, found->size(), data.size()));
  }
  const auto too_large = std::ranges::find_if(*found, [largest_byte](uint8_t byte) { return byte > largest_byte; });
  if (too_large != found->end()) {
    return reject(fmt::format("field {} is {}; 0 or 1 is expected", number, *too_large));
  }
  if (!data.empty()) std::memcpy(data.data(), found->data(), data.size());
}

void StateReader::field(uint16_t number, std::vector<uint8_t>& bytes) {
  const auto found = enter_field(number);
  if (!found) return;
  if (found->size() > kMaxStateBytes) {
    return reject(fmt::format("field {} has {} bytes; at most {} are allowed", number, found->size(), kMaxStateBytes));
  }
  bytes.assign(found->begin(), found->end());
}

void StateReader::reject(std::string message) {
  if (!ok()) return;
  error_ = section_.empty() ? std::move(message) : fmt::format("{}: {}", section_, message);
  if (error_.empty()) error_ = "refused without a reason";
}

Result<> StateReader::finish() const {
  if (!ok()) return Failure(Error{error_});
  if (in_section_) return fail("{}: the section was not read to its end", section_);
  if (at_ != bytes_.size()) return fail("{} bytes follow the last section of the saved state", bytes_.size() - at_);
  return {};
}

}  // namespace kite
