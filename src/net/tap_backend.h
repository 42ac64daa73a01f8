// TapBackend: a tap interface of the host's (-netdev tap, bridge). Where it comes from is tap_device.h; what the host
// does with it is a bridge's business, a script's, or the user's.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/net_backend.h"
#include "net/tap_device.h"

namespace kite::net {

class TapBackend final : public NetBackend {
 public:
  static Result<std::unique_ptr<TapBackend>> create(std::string id, Executor& executor, const TapConfig& config);
  // `config` for what info() tells and the end.
  TapBackend(std::string id, Executor& executor, TapDevice device, TapConfig config);
  ~TapBackend() override;

  [[nodiscard]] std::string info() const override;

 private:
  Delivery do_send(Frame frame) override;
  void room_again() override { update_interest(); }
  Result<> set_up();
  void ready(uint32_t events);
  void read_frames();
  void update_interest();

  const TapConfig config_;
  TapDevice tap_;
  bool full_ = false;    // the card waits for writable()
  bool over_ = false;    // the interface is gone
  bool set_up_ = false;  // its script has run
  std::vector<uint8_t> buffer_;
};

}  // namespace kite::net
