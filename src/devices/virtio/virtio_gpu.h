// virtio-gpu: a graphics card that shows what its driver draws in the guest's memory. [VIRTIO 1.2] 5.7. One screen, two
// dimensions.
//
// The driver makes resources, names memory that they are filled from, puts one on the screen and says what of it is
// new. Commands are carried out in their order and answered when they are done, so a fence has nothing to wait for.
// Long work is done in turns, so that whoever else lives on the executor has his.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "devices/virtio/virtio_device.h"
#include "devices/virtio/virtio_gpu_2d.h"
#include "display/console.h"

namespace kite::devices {

class VirtioGpu final : public VirtioDevice, public display::Source {
 public:
  static constexpr uint64_t kUsualBytes = uint64_t{256} << 20, kMostBytes = uint64_t{512} << 20;
  struct Config {
    std::string name;
    uint32_t xres = 1280, yres = 800;  // what its monitor prefers
    bool edid = true;
    uint64_t max_bytes = kUsualBytes;  // that the guest's resources may take, up to kMostBytes
  };
  // `console` is where it shows; null: nowhere, or whoever has made it shows it. `home` is the console's executor.
  VirtioGpu(Config config, display::Console* console, GuestMemory& memory, Executor& home, const Options& options);
  ~VirtioGpu() override;

  display::Mode draw(display::Surface& surface, bool all) override;
  void watched(bool on) override;
  // A driver has the screen. Home executor.
  [[nodiscard]] bool in_charge();

 private:
  using Chain = std::unique_ptr<VirtioChain>;
  using Response = virtio_gpu::Response;
  static constexpr uint64_t kBytesAtOnce = uint64_t{32} << 20, kCommandCost = 16 << 10;

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override;
  void device_reset() override;
  void save_type(StateWriter& writer) override;
  void restore_type(StateReader& reader) override;
  void apply_type() override;

  [[nodiscard]] std::unique_ptr<Gpu2d> make_gpu();
  Gpu2d& gpu();  // of this life
  bool belongs(const VirtioChain& chain);
  uint64_t control(Chain chain);
  uint64_t cursor(Chain chain);
  Response carry_out(const VirtioChain& chain, uint32_t command, std::vector<uint8_t>& answer);
  Response attach(const VirtioChain& chain);
  Response edid(const VirtioChain& chain, std::vector<uint8_t>& answer) const;
  [[nodiscard]] std::vector<uint8_t> display_info() const;

  // Static configuration and wiring.
  const Config config_;
  display::Console* const console_;

  // State.
  std::unique_ptr<Gpu2d> gpu_;  // home executor

  // Bookkeeping.
  std::atomic<uint64_t> resets_{0};  // changes with the device's lock held
  uint64_t seen_resets_ = 0;         // gpu_ is what has become of it since; home executor
  bool watched_ = false;
  std::unique_ptr<Gpu2d> restored_;
};

}  // namespace kite::devices
