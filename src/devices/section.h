// One section of saved state: a versioned wire struct with `static constexpr uint32_t kVersion` and a
// `visit(codec, wire)` that names its fields by number.
#pragma once

#include <fmt/format.h>

#include <string_view>

#include "state/codec.h"

namespace kite::devices {

template <class Wire>
void save_section(StateWriter& writer, std::string_view section, Wire wire) {
  writer.begin(section, Wire::kVersion);
  visit(writer, wire);
  writer.end();
}

// False when the section is damaged or of a version that this build does not know; the reader keeps the reason. The
// caller still has to judge the values.
template <class Wire>
bool restore_section(StateReader& reader, std::string_view section, Wire& wire) {
  const uint32_t version = reader.begin(section);
  if (!reader.ok()) return false;
  if (version != Wire::kVersion) {
    reader.reject(fmt::format("version {} is not known here; this build reads version {}", version, Wire::kVersion));
    return false;
  }
  visit(reader, wire);
  reader.end();
  return reader.ok();
}

// Rejects the state with `message` unless `possible`; answers `possible`.
inline bool require(StateReader& reader, bool possible, std::string_view message) {
  if (!possible) reader.reject(std::string(message));
  return possible;
}

}  // namespace kite::devices
