// TapBackend: a tap interface of the host's, made by this process (ifname=) or by another that hands its descriptor
// over (fd=). What the host does with the interface is the user's business: no scripts are run.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/net_backend.h"
#include "support/fd.h"

namespace kite::net {

struct TapConfig {
  std::string interface;  // "" for a name that the kernel chooses
  int fd = -1;            // instead; taken when all is well
  bool vhost = false;     // the kernel's vhost-net is wished for, which is not used
  int vhost_fd = -1;      // closed when all is well
};
// `settings` without type and id.
Result<TapConfig> parse_tap_options(const Settings& settings);

class TapBackend final : public NetBackend {
 public:
  static Result<std::unique_ptr<TapBackend>> create(std::string id, Executor& executor, const TapConfig& config);
  // `tap` does not block, and takes and gives one frame a call, behind `header_bytes` that say nothing (zeroes).
  TapBackend(std::string id, Executor& executor, Fd tap, std::string interface, size_t header_bytes);
  ~TapBackend() override;

  [[nodiscard]] std::string info() const override;

 private:
  Delivery do_send(Frame frame) override;
  void room_again() override { update_interest(); }
  void ready(uint32_t events);
  void read_frames();
  void update_interest();

  const Fd tap_;
  const std::string interface_;
  const size_t header_bytes_;
  bool full_ = false;  // the card waits for writable()
  bool over_ = false;  // the interface is gone
  std::vector<uint8_t> buffer_;
};

}  // namespace kite::net
