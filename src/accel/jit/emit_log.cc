// -d out_asm: a block's host code, under the guest instructions that it was made from.
#include <algorithm>
#include <span>
#include <string>

#include "accel/jit/emitter.h"
#include "support/log.h"

namespace kite::jit {
namespace {

using log::Category;

// One line for each instruction in [at, end), which is executed at these addresses.
void log_host_code(const uint8_t* at, const uint8_t* end) {
  constexpr size_t kLongest = 15;
  while (at < end) {
    x86::Insn insn;
    const std::span<const uint8_t> code(at, std::min(kLongest, static_cast<size_t>(end - at)));
    const bool known = x86::decode(code, {x86::CodeWidth::k64}, insn) == x86::DecodeStatus::kOk;
    const size_t length = known ? insn.length : 1;
    std::string bytes;
    for (const uint8_t byte : code.first(length)) bytes += fmt::format("{:02x}", byte);
    const auto rip = reinterpret_cast<uintptr_t>(at);
    log::print(Category::kOutAsm, "      {:x}: {:<32}{}", rip, bytes, known ? x86::to_text(insn, rip) : "(bad)");
    at += length;
  }
}

}  // namespace

void BlockEmitter::log_code(const uint8_t* hot, const uint8_t* cold) const {
  log::print(Category::kOutAsm, "cpu {}: block at {:x}, {} bytes as {}", cpu_.config.index, block_.rip, block_.bytes,
             translation_.host_bytes);
  // What is behind an instruction that always leaves has not been emitted.
  const auto emitted = static_cast<size_t>(std::ranges::find(starts_, nullptr) - starts_.begin());
  log_host_code(hot, emitted != 0 ? starts_[0] : a_.here());
  for (size_t i = 0; i < emitted; ++i) {
    log::print(Category::kOutAsm, "  {:x}: {}", ops_[i].rip, x86::to_text(insns_[i], ops_[i].rip));
    log_host_code(starts_[i], i + 1 < emitted ? starts_[i + 1] : a_.here());
  }
  log::print(Category::kOutAsm, "  out of line:");
  log_host_code(cold, cold_.here());
}

}  // namespace kite::jit
