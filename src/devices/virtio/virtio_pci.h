// VirtioPci: the PCI transport of virtio devices. [VIRTIO 1.2] 4.1: the legacy interface in BAR 0 (ports), MSI-X in
// BAR 1, and the modern interface in BAR 4 with its capabilities. A transitional function has both interfaces. A card
// that is a VGA, too, has other BARs.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bus/pci.h"
#include "bus/pci_msi.h"
#include "devices/virtio/virtio_device.h"
#include "object/object_type.h"

namespace kite::devices {

class VirtioPci : public bus::PciDevice, private VirtioTransport {
 public:
  struct Config {
    bool legacy = true, modern = true;  // one at least
    bool doorbells = true;              // kicks go to the device's executor without the vCPU's detour
    bool page_per_queue = false;        // every queue has a page of its own to be kicked at
    bool express = false;               // an endpoint on a PCI Express link
    bool ats = false;                   // Express only
    uint16_t vectors = 2;               // of MSI-X; 0: none
    uint16_t legacy_device_id = 0;      // 0x1000-0x103f
    uint32_t class_code = 0;
    // BAR 0 and the first page of BAR 2 are a VGA's: the modern interface follows there, MSI-X is in BAR 4.
    bool beside_vga = false;
  };
  VirtioPci(std::string path, const Config& config, std::unique_ptr<VirtioDevice> device);
  ~VirtioPci() override;

  void reset() override;
  void start() override { device_->start(); }
  void stop() override { device_->stop(); }
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;
  [[nodiscard]] std::vector<LiveProperty> live_properties() override { return device_->live_properties(); }
  [[nodiscard]] VirtioDevice& device() { return *device_; }

 protected:
  // For functions that are something else besides: its part of the section, judged and read before anything changes,
  // and taken once all was good.
  virtual void save_beside(StateWriter& writer) { (void)writer; }
  virtual void restore_beside(StateReader& reader) { (void)reader; }
  virtual void apply_beside() {}
  [[nodiscard]] Region& modern_bar() { return *modern_bar_; }

 private:
  enum class Part : uint8_t { kLegacy, kCommon, kIsr, kDevice, kNotify };
  struct Places;
  class Handler;
  class ConfigAccess;
  struct State {
    uint32_t device_feature_select = 0, driver_feature_select = 0;
    uint16_t queue_select = 0;
    uint16_t config_vector = virtio::kNoVector;
    uint8_t isr = 0;
  };

  void add_bars(const Config& config);
  void add_capabilities(const Config& config);
  void add_capability_at(uint8_t offset, uint8_t type, uint8_t length, uint32_t bar_offset, uint32_t bytes);
  void add_express(bool ats);
  void add_doorbells();

  // VirtioTransport; the device's lock is held.
  void queue_interrupt(uint16_t vector) override;
  void config_interrupt() override;
  [[nodiscard]] bool may_master() const override { return PciDevice::may_master(); }

  void config_written(uint16_t offset, unsigned size, uint32_t value) override;
  void config_loaded() override { msix_changed(); }
  void msix_changed();

  uint64_t read(Part part, uint64_t offset, unsigned size);
  void write(Part part, uint64_t offset, unsigned size, uint64_t value);
  // The following hold the device's lock.
  uint64_t read_common(uint64_t offset, unsigned size);
  void write_common(uint64_t offset, unsigned size, uint64_t value);
  void write_queue(uint64_t offset, unsigned size, uint64_t value);
  void write_queue_address(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_legacy(uint64_t offset, unsigned size);
  void write_legacy(uint64_t offset, unsigned size, uint64_t value);
  [[nodiscard]] uint64_t legacy_config_offset() const;
  [[nodiscard]] bool queue_selected() const { return state_.queue_select < device_->shape().queues; }
  [[nodiscard]] uint16_t checked_vector(uint64_t value) const;
  void write_status(uint8_t status, bool legacy);
  uint8_t take_isr();
  void raise(uint8_t isr, uint16_t vector);

  // Static configuration and wiring.
  const Config config_choice_;
  const Places& places_;
  const uint32_t notify_multiplier_;
  std::unique_ptr<VirtioDevice> device_;
  std::vector<std::unique_ptr<Handler>> handlers_;  // by Part
  std::unique_ptr<bus::MsixCapability> msix_;       // null without vectors
  std::unique_ptr<ConfigAccess> config_access_;     // modern
  std::shared_ptr<Region> legacy_ports_, notify_region_, modern_bar_;

  // State; the rest is the device's and the configuration space's. Under the device's lock.
  State state_;
  std::atomic<bool> msix_enabled_{false};  // follows from the configuration space
};

// --- types

// Properties of every virtio-*-pci, for its ObjectType: vectors, ioeventfd, disable-legacy, disable-modern, packed, ...
std::vector<Property> virtio_pci_properties();

// What the name of a type says about its interfaces: virtio-blk-pci, ...-transitional, ...-non-transitional.
enum class VirtioModel : uint8_t { kGeneric, kTransitional, kNonTransitional };
// Adds three types, "BASE", "BASE-transitional" and "BASE-non-transitional"; the first has disable-legacy and
// disable-modern. `own` are the device type's properties.
void add_virtio_pci_types(TypeRegistry& registry, const std::string& base, const std::string& description,
                          std::vector<Property> own);
// The name that users write for "BASE-pci": "BASE".
void add_short_virtio_name(TypeRegistry& registry, const std::string& base);
[[nodiscard]] VirtioModel virtio_model(std::string_view type);

// Reads the properties; checks that they go together. `type` is the -device's, `bus` where it goes; `vectors` is what
// the device wants when the user does not say.
Result<VirtioPci::Config> make_virtio_pci_config(std::string_view type, const PropertyMap& properties,
                                                 const bus::PciBus& bus, uint16_t vectors);
// The same for a type whose name does not say what interfaces it has.
Result<VirtioPci::Config> make_virtio_pci_config(std::string_view type, const PropertyMap& properties,
                                                 const bus::PciBus& bus, uint16_t vectors, VirtioModel model);
VirtioDevice::Options make_virtio_options(const PropertyMap& properties);

}  // namespace kite::devices
