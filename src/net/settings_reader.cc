#include "net/settings_reader.h"

#include <fcntl.h>

#include <algorithm>
#include <ranges>

#include "object/object_type.h"
#include "support/suggest.h"

namespace kite::net {

const std::string* SettingsReader::find(std::string_view name) {
  read_.emplace_back(name);
  const auto found = std::ranges::find(settings_ | std::views::reverse, name, &Settings::value_type::first);
  return found == settings_.rend() ? nullptr : &found->second;
}

bool SettingsReader::has(std::string_view name) { return find(name) != nullptr; }

std::string SettingsReader::text(std::string_view name) {
  const std::string* const value = find(name);
  return value == nullptr ? std::string() : *value;
}

Result<bool> SettingsReader::boolean(std::string_view name, bool otherwise) {
  const std::string* const value = find(name);
  if (value == nullptr) return otherwise;
  const auto parsed = parse_bool(*value);
  if (!parsed) return fail("{}={}: {}", name, *value, parsed.error().message);
  return *parsed;
}

Result<uint64_t> SettingsReader::number(std::string_view name, uint64_t otherwise, uint64_t most) {
  const std::string* const value = find(name);
  if (value == nullptr) return otherwise;
  const auto parsed = parse_unsigned(*value);
  if (!parsed || *parsed > most) return fail("{}={}: a number from 0 to {} is expected", name, *value, most);
  return *parsed;
}

Result<int> SettingsReader::descriptor(std::string_view name) {
  const std::string value = text(name);
  const auto number = parse_unsigned(value);
  if (!number || *number > INT32_MAX)
    return fail("{}={}: the number of a descriptor that this process was started with is expected", name, value);
  const int fd = static_cast<int>(*number);
  if (::fcntl(fd, F_GETFD) < 0) return fail("{}={}: there is no such descriptor", name, value);
  return fd;
}

Result<> SettingsReader::missing(std::string_view name, std::string_view reason) {
  const std::string* const value = find(name);
  if (value == nullptr || *value == "off") return {};
  return fail("{}={}: {}", name, *value, reason);
}

Result<> SettingsReader::finish() const {
  for (const auto& [name, value] : settings_)
    if (std::ranges::find(read_, name) == read_.end())
      return fail("{} has no setting '{}' here{}", type_, name,
                  suggestion(name, std::vector<std::string_view>(read_.begin(), read_.end())));
  return {};
}

}  // namespace kite::net
