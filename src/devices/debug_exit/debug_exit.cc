#include "devices/debug_exit/debug_exit.h"

#include "devices/section.h"

namespace kite::devices {
namespace {

struct DebugExitV1 {
  static constexpr uint32_t kVersion = 1;
};
template <class Codec>
void visit(Codec&, DebugExitV1&) {}

}  // namespace

DebugExit::DebugExit(std::string path, Config config, std::function<void(int)> exit)
    : Device(std::move(path)),
      exit_(std::move(exit)),
      region_(Region::io("isa-debug-exit", config.iosize, *this, {.min_size = 1, .max_size = 4, .unaligned = true})) {}

uint64_t DebugExit::io_read(uint64_t, unsigned) { return 0; }

void DebugExit::io_write(uint64_t, unsigned, uint64_t value) {
  exit_(static_cast<int>(static_cast<uint32_t>(value << 1) | 1));
}

void DebugExit::save(StateWriter& writer) { save_section(writer, path(), DebugExitV1{}); }

void DebugExit::restore(StateReader& reader) {
  DebugExitV1 wire;
  restore_section(reader, path(), wire);
}

}  // namespace kite::devices
