#include "devices/nvme/namespace_bus.h"

#include <cctype>

namespace kite::devices {

Result<std::array<uint8_t, 16>> parse_uuid(std::string_view what, std::string_view text) {
  std::array<uint8_t, 16> uuid{};
  if (text.empty()) return uuid;
  size_t digits = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const auto c = static_cast<unsigned char>(text[at]);
    const bool dash = at == 8 || at == 13 || at == 18 || at == 23;
    if (text.size() != 36 || (dash ? c != '-' : std::isxdigit(c) == 0))
      return fail("-device {}: uuid={} is no UUID, which looks like 01234567-89ab-cdef-0123-456789abcdef", what, text);
    if (dash) continue;
    const int value = std::isdigit(c) != 0 ? c - '0' : std::tolower(c) - 'a' + 10;
    uuid[digits / 2] = static_cast<uint8_t>(uuid[digits / 2] << 4 | value);
    ++digits;
  }
  return uuid;
}

uint32_t NvmeController::NamespaceBus::free_nsid() const {
  for (uint32_t nsid = 1; nsid < owner_.namespaces_.size(); ++nsid)
    if (owner_.namespaces_[nsid] == nullptr) return nsid;
  return 0;
}

Result<> NvmeController::NamespaceBus::add(NvmeNamespace& space) {
  const std::lock_guard lock(owner_.lock_);
  NvmeNamespace*& place = owner_.namespaces_[space.nsid()];
  if (place != nullptr)
    return fail("{}: the controller has a namespace {} already; nsid={} is free", space.path(), space.nsid(),
                free_nsid());
  place = &space;
  // Commands are fetched on the executor of the first drive; requests to drives elsewhere hop there by themselves.
  if (owner_.home_ == nullptr) {
    owner_.home_ = &space.drive().executor();
    owner_.default_write_cache_ = space.drive().write_cache();
  }
  owner_.state_.features.write_cache = owner_.default_write_cache_;
  return {};
}

Result<std::unique_ptr<bus::Device>> NvmeController::NamespaceBus::attach(const DiskDevice& device) {
  const uint64_t wanted = device.properties.integer("nsid");
  const uint32_t nsid = wanted != 0 ? static_cast<uint32_t>(wanted) : free_nsid();
  if (nsid == 0) return fail("-device nvme-ns: '{}' has {} namespaces already", name(), NvmeNamespace::kMostNamespaces);
  NvmeNamespace::Identity identity{.nsid = nsid, .eui64 = device.properties.integer("eui64")};
  if (identity.eui64 == 0) identity.eui64 = make_eui64(owner_.options_.serial, nsid);
  KITE_ASSIGN(identity.uuid, parse_uuid("nvme-ns", device.properties.string("uuid")));
  KITE_ASSIGN(auto made, NvmeNamespace::create("nvme-ns", device.path, device.disk, identity));
  KITE_TRY(add(*made));
  return made;
}

void NvmeController::NamespaceBus::detach(bus::Device& device) {
  quiesce();
  const std::lock_guard lock(owner_.lock_);
  for (NvmeNamespace*& space : owner_.namespaces_)
    if (space == &device) space = nullptr;
}

void NvmeController::NamespaceBus::quiesce() {
  {
    const std::lock_guard lock(owner_.lock_);
    owner_.stopped_ = true;
    for (NvmeNamespace* space : owner_.namespaces_)
      if (space != nullptr && !owner_.tasks_.idle()) space->drive().cancel();
  }
  owner_.tasks_.wait_idle();
}

std::string NvmeController::NamespaceBus::boot_path(const bus::Device& device) const {
  for (const NvmeNamespace* space : owner_.namespaces_)
    if (space == &device) return fmt::format("namespace@{:x},0", space->nsid());
  return "";
}

}  // namespace kite::devices
