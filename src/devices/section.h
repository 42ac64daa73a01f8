// One section of saved state: a versioned wire struct with `static constexpr uint32_t kVersion` and a
// `visit(codec, wire)` that names its fields by number.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "state/codec.h"

namespace kite::devices {

// `rest` writes what the section holds besides the wire struct (PciDevice::save_config).
template <class Wire, class Rest>
void save_section(StateWriter& writer, std::string_view section, Wire wire, Rest rest) {
  writer.begin(section, Wire::kVersion);
  visit(writer, wire);
  rest();
  writer.end();
}
template <class Wire>
void save_section(StateWriter& writer, std::string_view section, Wire wire) {
  save_section(writer, section, std::move(wire), [] {});
}

// False when the section is damaged or of a version that this build does not know; the reader keeps the reason. `rest`
// judges the values and reads what else the section holds.
template <class Wire, class Rest>
bool restore_section(StateReader& reader, std::string_view section, Wire& wire, Rest rest) {
  const uint32_t version = reader.begin(section);
  if (!reader.ok()) return false;
  if (version != Wire::kVersion) {
    reader.reject(fmt::format("version {} is not known here; this build reads version {}", version, Wire::kVersion));
    return false;
  }
  visit(reader, wire);
  if (reader.ok()) rest();
  reader.end();
  return reader.ok();
}
template <class Wire>
bool restore_section(StateReader& reader, std::string_view section, Wire& wire) {
  return restore_section(reader, section, wire, [] {});
}

// Rejects the state with `message` unless `possible`; answers `possible`.
inline bool require(StateReader& reader, bool possible, std::string_view message) {
  if (!possible) reader.reject(std::string(message));
  return possible;
}

}  // namespace kite::devices
