// A hostile guest at the devices of the pc board, or of the q35 board where the first byte is odd;
// tests/hostile/hostile_board.h says what it does.
#include <cstdlib>

#include "hostile/hostile_board.h"
#include "support/log.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto board = kite::hostile::HostileBoard::create(size > 0 && (data[0] & 1) != 0 ? "pc-q35-7.2" : "pc");
  if (!board) {
    kite::log::error("{}", board.error().message);
    std::abort();
  }
  if (const auto done = (*board)->run({data, size}); !done) {
    kite::log::error("step {}: {}", (*board)->steps(), done.error().message);
    std::abort();
  }
  return 0;
}
