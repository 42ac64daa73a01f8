// -d op: what is decided for each guest instruction; -d out_asm: a block's host code, under the guest instructions that
// it was made from.
#include <algorithm>
#include <span>
#include <string>

#include "accel/jit/emitter.h"
#include "cpu/handlers.h"
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

void BlockEmitter::log_block() const {
  log::print(Category::kOp, "cpu {}: block at {:x}, {} bytes, mode {:x}, {} code; the flags it is entered with are {}",
             cpu_.config.index, block_.rip, block_.bytes, block_.mode_key, wide_ ? "64-bit" : "32-bit",
             flags_are_dead() ? "dead" : "saved");
}

void BlockEmitter::note_look_up(unsigned bytes, bool write, std::string_view how) {
  if (!log::enabled(Category::kOp)) return;
  look_ups_ += fmt::format("{}{}{} {}", look_ups_.empty() ? "" : ", ", how, write ? "write" : "read", bytes);
}

// As far as the instruction tells: the emitters of its family have turned it down.
std::string_view BlockEmitter::why_interpreted() const {
  if (op().handler == cpu::invalid_opcode) return "an invalid opcode";
  if (!insn().has_mem) return cpu::ends_block(insn().op) || ends_ ? "it may go anywhere" : "no host code for it";
  if (insn().mem.vector_index != 0) return "no host code for vectors of addresses";
  if (!memory_allowed()) return wide_ ? "an address of 16 bits" : "an address of 16 bits or a segment that is not flat";
  return "no host code for it with this operand";
}

// One line: how it was emitted, what it looks up, where the flags were and are, and its ways out of line.
void BlockEmitter::log_decision(Outcome outcome, Flags flags_before, size_t first_detour) const {
  static constexpr const char* kFlags[] = {"EFLAGS", "EFLAGS or made anew", "made anew", "saved", "EFLAGS and saved"};
  static constexpr const char* kDetours[] = {"interpreter",    "hand-over",  "watched page", "exit",
                                             "forget returns", "load units", "plain version"};
  std::string line = outcome == Outcome::kInterpret ? fmt::format("interpreted: {}", why_interpreted())
                     : outcome == Outcome::kEnd     ? "native, ends the block"
                                                    : "native";
  if (!look_ups_.empty()) line += fmt::format("; looks up {}", look_ups_);
  line += fmt::format("; flags: {}", kFlags[static_cast<size_t>(flags_before)]);
  if (flags_ != flags_before) line += fmt::format(" -> {}", kFlags[static_cast<size_t>(flags_)]);
  for (size_t i = first_detour; i < detours_.size(); ++i)
    line += fmt::format("{}{}", i == first_detour ? "; out of line: " : ", ",
                        kDetours[static_cast<size_t>(detours_[i].kind)]);
  log::print(Category::kOp, "  {:x}: {:<40} {}", op().rip, x86::to_text(insn(), op().rip), line);
}

void BlockEmitter::log_code(const uint8_t* hot, const uint8_t* cold) const {
  log::print(Category::kOutAsm, "cpu {}: block at {:x}, {} bytes as {}", cpu_.config.index, block_.rip, block_.bytes,
             translation_.host_bytes);
  // What is behind an instruction that always leaves has not been emitted.
  const auto emitted =
      static_cast<size_t>(std::ranges::find(starts_.begin(), starts_.begin() + count_, nullptr) - starts_.begin());
  log_host_code(hot, emitted != 0 ? starts_[0] : a_.here());
  for (size_t i = 0; i < emitted; ++i) {
    log::print(Category::kOutAsm, "  {:x}: {}", ops_[i].rip, x86::to_text(insns_[i], ops_[i].rip));
    log_host_code(starts_[i], i + 1 < emitted ? starts_[i + 1] : a_.here());
  }
  log::print(Category::kOutAsm, "  out of line:");
  log_host_code(cold, cold_.here());
}

}  // namespace kite::jit
