#include "machine/firmware/boot_order.h"

namespace kite::machine {

Result<> BootOrder::add(uint64_t index, std::string path, std::string owner) {
  const auto [at, added] = devices_.try_emplace(index, Entry{.path = std::move(path), .owner = owner});
  if (!added) return fail("{}: bootindex {} is taken by {}", owner, index, at->second.owner);
  return {};
}

void BootOrder::add_geometry(std::string path, std::string owner, uint64_t cylinders, uint64_t heads,
                             uint64_t sectors) {
  geometries_.push_back(
      {.path = fmt::format("{} {} {} {}", path, cylinders, heads, sectors), .owner = std::move(owner)});
}

void BootOrder::remove(std::string_view owner) {
  std::erase_if(devices_, [owner](const auto& device) { return device.second.owner == owner; });
  std::erase_if(geometries_, [owner](const Entry& disk) { return disk.owner == owner; });
}

std::vector<uint8_t> BootOrder::geometry_file() const {
  std::string text;
  for (const Entry& disk : geometries_) text += (text.empty() ? "" : "\n") + disk.path;
  text.push_back('\0');
  return {text.begin(), text.end()};
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
