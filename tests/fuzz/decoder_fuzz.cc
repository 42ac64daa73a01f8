// Random bytes to the decoder: it stays inside them, its length is right, and its text can be made.
#include <cstdlib>
#include <vector>

#include "fuzz/byte_source.h"
#include "x86/insn.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kite;  // NOLINT: a test program
  if (size < 1) return 0;
  const std::vector<uint8_t> bytes(data + 1, data + std::min<size_t>(size, 16));  // own allocation: overruns show
  x86::Insn insn;
  const auto status = x86::decode(bytes, {static_cast<x86::CodeWidth>(data[0] % 3)}, insn);
  if (status != x86::DecodeStatus::kOk) return 0;
  if (insn.length == 0 || insn.length > bytes.size()) std::abort();
  if (x86::to_text(insn, 0x1000).empty()) std::abort();
  // What follows the instruction does not matter.
  x86::Insn again;
  if (x86::decode(std::span(bytes).first(insn.length), {static_cast<x86::CodeWidth>(data[0] % 3)}, again) !=
          x86::DecodeStatus::kOk ||
      again.length != insn.length || again.op != insn.op)
    std::abort();
  return 0;
}
