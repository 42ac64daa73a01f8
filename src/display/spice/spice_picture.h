// SpicePicture: the picture for libspice-server, as a QXL card without a card. The library has a thread of its own for
// it, which takes drawing commands here and gives them back when nobody needs their pixels any more; commands are made
// when it asks. Where not said otherwise, the executor's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "async/clock.h"
#include "display/frame_relay.h"

struct RedsState;

namespace kite::display {

class SpicePicture {
 public:
  // Of commands that the library has: beyond it, it is asked to draw what it holds back before it gets more.
  static constexpr size_t kMostBytes = 64u << 20;

  // `later` posts to the executor. All outlive this.
  SpicePicture(FrameRelay& relay, const Clock& clock, std::function<void(std::function<void()>)> later);
  ~SpicePicture();
  SpicePicture(const SpicePicture&) = delete;
  SpicePicture& operator=(const SpicePicture&) = delete;

  // Adds itself to an initialised server, and takes itself out of it: before it is destroyed.
  [[nodiscard]] bool attach(RedsState* server);
  void detach();
  // There is something in the relay: shows its size, and what has changed.
  void refresh();

 private:
  struct Library;  // keeps the library's names out of this header
  std::unique_ptr<Library> library_;
};

}  // namespace kite::display
