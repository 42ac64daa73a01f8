// virtio-net: a network card. [VIRTIO 1.2] 5.1.
//
// Everything but register accesses happens on the back end's executor. What the back end has no room for, and buffers
// that the frame at hand does not fit into yet, are chains that the card holds: they count as requests in flight.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "devices/virtio/receive_filter.h"
#include "devices/virtio/virtio_device.h"
#include "net/net_backend.h"

namespace kite::devices {

class VirtioNet final : public VirtioDevice, private net::NetClient {
 public:
  struct Config {
    std::string name, model;  // for the monitor
    net::MacAddress mac{};
    net::NetBackend* backend = nullptr;  // null: the link is down for good
    uint64_t features = 0;               // of virtio_net_regs.h; VIRTIO_NET_F_MAC and _MTU are added
    uint16_t mtu = 0;                    // 0: not told
  };
  VirtioNet(Config config, GuestMemory& memory, Executor& home, const Options& options);
  ~VirtioNet() override;

 private:
  using Chain = std::unique_ptr<VirtioChain>;
  static constexpr size_t kAddressBytes = sizeof(net::MacAddress);

  void serve(uint16_t queue) override;
  void read_config(std::span<uint8_t> config) override;
  void config_written(uint32_t offset, std::span<const uint8_t> bytes) override;
  void driver_ready() override { driver_up_.store(true, std::memory_order_release); }
  void device_reset() override;
  void cancel_requests() override;
  void queue_reset(uint16_t queue) override;
  void save_type(StateWriter& writer) override;
  void restore_type(StateReader& reader) override;
  void apply_type() override;

  // NetClient.
  net::Delivery receive(net::Frame frame) override;
  void writable() override { kick_transmit(); }
  void link_changed() override;
  void backend_gone() override;
  [[nodiscard]] Description describe() const override;

  void kick_transmit();
  [[nodiscard]] size_t header_bytes() const;
  void refuse(Chain chain, std::string_view why);
  void drop_held(std::vector<Chain>& held);
  // Receiving.
  [[nodiscard]] bool wanted(net::Frame frame);
  [[nodiscard]] net::Delivery gather(net::Frame frame, size_t header);
  [[nodiscard]] size_t most_buffers();
  [[nodiscard]] net::Delivery fill(net::Frame frame, size_t header_size);
  // Sending.
  void serve_transmit();
  bool transmit(Chain& chain);  // false: the back end has no room, the chain is still there
  bool take_frame(const VirtioChain& chain);
  bool complete_checksum(const uint8_t* header);
  // virtio_net_control.cc.
  void serve_control();
  [[nodiscard]] uint8_t control(const VirtioChain& chain);
  [[nodiscard]] uint8_t set_mode(uint8_t command, const VirtioChain& chain);
  [[nodiscard]] uint8_t set_addresses(const VirtioChain& chain);
  [[nodiscard]] uint8_t set_address(const VirtioChain& chain);
  [[nodiscard]] uint8_t set_vlan(uint8_t command, const VirtioChain& chain);

  // Static configuration and wiring.
  const Config config_;
  net::NetBackend* backend_;
  std::atomic<bool> link_{false};

  // State: what the driver said about frames; the rest is VirtioDevice's.
  mutable std::mutex filter_mutex_;  // a leaf
  net::MacAddress mac_;
  ReceiveFilter filter_;

  // Derived, or bookkeeping.
  std::atomic<bool> driver_up_{false};
  bool serving_ = false;
  std::vector<Chain> receiving_, sending_;  // held; of the second there is one at most
  std::vector<uint8_t> frame_;              // scratch: what the guest sends
  struct Restored {
    net::MacAddress mac{};
    ReceiveFilter filter;
  };
  Restored restored_;
};

}  // namespace kite::devices
