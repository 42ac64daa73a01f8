// AtaBus: the bus of an IDE channel (two units) or of an AHCI port (one): takes devices of the types "ide-hd" and
// "ide-cd".
#pragma once

#include <array>
#include <functional>

#include "devices/ata/ata_device.h"
#include "devices/storage/disk_bus.h"

namespace kite::devices {

class AtaBus final : public DiskBus {
 public:
  struct Config {
    std::string name;     // "ide.0"
    unsigned units = 2;   // 1 or 2
    unsigned number = 0;  // of the bus in its controller
    bool serial = false;  // Serial ATA
  };
  // Host and lock are the transport's. `changed` is called when a device has come or gone, with no lock held.
  AtaBus(Config config, AtaHost& host, std::mutex& lock, std::function<void()> changed)
      : config_(std::move(config)), host_(host), lock_(lock), changed_(std::move(changed)) {}

  [[nodiscard]] std::string name() const override { return config_.name; }
  [[nodiscard]] std::string_view kind() const override { return "IDE"; }
  [[nodiscard]] bool has_room() const override;
  Result<std::unique_ptr<bus::Device>> attach(const DiskDevice& device) override;
  void detach(bus::Device& device) override;
  [[nodiscard]] std::string boot_path(const bus::Device& device) const override;

  // Null when there is none; holds the lock.
  [[nodiscard]] AtaDevice* unit(unsigned index) const { return devices_[index]; }
  [[nodiscard]] unsigned units() const { return config_.units; }

 private:
  [[nodiscard]] Result<unsigned> choose_unit(const DiskDevice& device) const;
  Result<std::unique_ptr<AtaDevice>> make(const DiskDevice& device, unsigned unit);

  // Static configuration and wiring.
  const Config config_;
  AtaHost& host_;
  std::mutex& lock_;
  std::function<void()> changed_;
  std::array<AtaDevice*, 2> devices_{};
};

// Adds the types of the disks that sit on these buses.
void register_ata_types(TypeRegistry& registry);

}  // namespace kite::devices
