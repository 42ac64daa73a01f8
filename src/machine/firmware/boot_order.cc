#include "machine/firmware/boot_order.h"

namespace kite::machine {

Result<> BootOrder::add(uint64_t index, std::string path, std::string owner) {
  const auto [at, added] = devices_.try_emplace(index, Entry{.path = std::move(path), .owner = owner});
  if (!added) return fail("{}: bootindex {} is taken by {}", owner, index, at->second.owner);
  return {};
}

void BootOrder::add_geometry(const std::string& path, uint64_t cylinders, uint64_t heads, uint64_t sectors) {
  geometries_ += fmt::format("{}{} {} {} {}", geometries_.empty() ? "" : "\n", path, cylinders, heads, sectors);
}

std::vector<uint8_t> BootOrder::geometry_file() const {
  std::vector<uint8_t> bytes(geometries_.begin(), geometries_.end());
  if (!bytes.empty()) bytes.push_back(0);
  return bytes;
}

std::vector<uint8_t> BootOrder::file(bool strict) const {
  std::string text = first_;
  for (const auto& [index, entry] : devices_) text += (text.empty() ? "" : "\n") + entry.path;
  if (strict) text += text.empty() ? "HALT" : "\nHALT";
  text.push_back('\0');
  return {text.begin(), text.end()};
}

std::string BootOrder::pci_path(std::string_view name, uint8_t devfn, std::string_view rest) {
  const unsigned function = devfn & 7u;
  return fmt::format("/pci@i0cf8/{}@{:x}{}{}", name, devfn >> 3, function != 0 ? fmt::format(",{:x}", function) : "",
                     rest);
}

}  // namespace kite::machine
