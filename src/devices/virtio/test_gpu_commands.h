// Commands for a virtio graphics card that a hostile driver sends: mostly such as make sense.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <vector>

#include "devices/virtio/virtio_gpu_regs.h"

namespace kite::testing {

// `below(n)` answers a number below n; memory for pictures is 64 KiB from `memory` on. A few resources of a few sizes,
// so that commands meet what others have made.
template <class Below>
std::vector<uint32_t> gpu_command(Below below, uint32_t memory) {
  using namespace devices::virtio_gpu;  // NOLINT: the protocol
  constexpr uint32_t kCommands[] = {kGetDisplayInfo, kCreate2d, kCreate2d,         kUnref,         kSetScanout,
                                    kFlush,          kFlush,    kTransferToHost2d, kAttachBacking, kAttachBacking,
                                    kDetachBacking,  kGetEdid,  kUpdateCursor,     kMoveCursor};
  constexpr uint32_t kFormats[] = {kB8G8R8A8, kA8R8G8B8, kX8B8G8R8, 9};
  const uint32_t command = kCommands[below(std::size(kCommands))], resource = below(4);
  std::vector<uint32_t> words = {command, below(2), below(256), 0, 0, 0};
  const auto add = [&](std::initializer_list<uint32_t> more) { words.insert(words.end(), more); };
  const auto side = [&]() -> uint32_t { return below(2) == 0 ? kCursorSide : below(80); };
  const auto screen = [&]() -> uint32_t { return below(8) == 0 ? 1 : 0; };
  switch (command) {
    case kCreate2d: add({resource, kFormats[below(std::size(kFormats))], side(), side()}); break;
    case kAttachBacking:
      add({resource, below(3)});
      for (unsigned entry = 0; entry < 3; ++entry) add({memory + below(64) * 0x400, 0, below(0x8000), 0});
      break;
    case kUpdateCursor:
    case kMoveCursor: add({screen(), below(100), below(100), 0, resource, 0, 0, 0}); break;
    case kUnref:
    case kDetachBacking:
    case kGetEdid: add({resource, 0}); break;
    default:
      add({below(8), below(8), side(), side()});
      if (command == kSetScanout) add({screen()});
      if (command == kTransferToHost2d) add({below(64), 0});
      add({resource, 0});
  }
  return words;
}

}  // namespace kite::testing
