#include "machine/firmware/boot_order.h"

namespace kite::machine {

Result<> BootOrder::add(uint64_t index, std::string path, std::string owner) {
  const auto [at, added] = devices_.try_emplace(index, Entry{.path = std::move(path), .owner = owner});
  if (!added) return fail("{}: bootindex {} is taken by {}", owner, index, at->second.owner);
  return {};
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
