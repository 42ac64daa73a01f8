// Base64 as [RFC 4648] 4 has it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kite {

std::string to_base64(std::span<const uint8_t> bytes);
// What follows a '=' is not looked at; nothing when a letter is none of the alphabet's.
std::optional<std::vector<uint8_t>> from_base64(std::string_view text);

}  // namespace kite
