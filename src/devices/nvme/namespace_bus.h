// The bus of an NVMe controller, where nvme-ns devices sit. A part of NvmeController.
#pragma once

#include "devices/nvme/nvme_controller.h"

namespace kite::devices {

class NvmeController::NamespaceBus final : public DiskBus {
 public:
  explicit NamespaceBus(NvmeController& owner) : owner_(owner) {}

  [[nodiscard]] std::string name() const override { return owner_.options_.name; }
  [[nodiscard]] std::string_view kind() const override { return "nvme-bus"; }
  [[nodiscard]] bool has_room() const override { return free_nsid() != 0; }
  Result<std::unique_ptr<bus::Device>> attach(const DiskDevice& device) override;
  void detach(bus::Device& device) override;
  [[nodiscard]] std::string boot_path(const bus::Device& device) const override;

  // While the machine is built. The namespace outlives the controller's requests to it (quiesce()).
  Result<> add(NvmeNamespace& space);
  // Nothing is fetched any more; requests under way are cancelled and waited for.
  void quiesce();

 private:
  [[nodiscard]] uint32_t free_nsid() const;  // 0: none

  NvmeController& owner_;
};

// "" is no UUID (all zero).
Result<std::array<uint8_t, 16>> parse_uuid(std::string_view what, std::string_view text);

}  // namespace kite::devices
