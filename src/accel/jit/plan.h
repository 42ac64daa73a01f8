// The plan of translated code: which host register is what, where the Cpu's fields are, and the records that code
// leaves behind for the runtime. docs/jit.md explains it.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "accel/jit/assembler.h"
#include "cpu/block.h"
#include "cpu/cpu.h"

namespace kite::jit {

// Guest registers live in host registers but for R12-R15, which compilers take last and which stay in the Cpu. RAX, R10
// and R11 are scratch between instructions; RSP is the host's stack; GS points to the Cpu.
inline constexpr std::array<uint8_t, 16> kHost = {kR8,  kRcx, kRdx, kRbx, kR9,   kRbp,  kRsi,  kRdi,
                                                  kR12, kR13, kR14, kR15, kNone, kNone, kNone, kNone};

inline constexpr auto kStackPointer = static_cast<Reg>(kHost[x86::kRsp]);

// Distances from the Cpu to what code touches; the same for every Cpu of this build.
struct Layout {
  explicit Layout(cpu::Cpu& cpu);
  int32_t gpr, rip, cc, rflags, segment_base[x86::kSegCount], selector[x86::kSegCount], block, mode_key;
  int32_t alarm, completed, saved_flags, spare, exit, code, returns, returns_end, blocks_entered, cycles, cycles_at,
      jumps, fx, mxcsr, host_mxcsr, units;
  int32_t cpl, returns_lost, requests, kernel_gs_base, pauses, cr4, tlb_place, window_places, window_states,
      pages_watched, runs;
  int32_t tlb[static_cast<size_t>(cpu::TlbKind::kCount)];

  [[nodiscard]] Mem vector(unsigned number) const {
    constexpr int32_t kXmm0 = 160;  // in the FXSAVE image (SDM 1, table 10-2)
    return in_cpu(fx + kXmm0 + static_cast<int32_t>(number) * 16);
  }
  [[nodiscard]] Mem high_half(unsigned number) const {
    Mem mem = vector(number);
    mem.disp += static_cast<int32_t>(x86::kYmmHighDistance);
    return mem;
  }
  // A field of the FXSAVE image.
  [[nodiscard]] Mem image(int32_t offset) const { return in_cpu(fx + offset); }
  [[nodiscard]] Mem slot(unsigned guest) const { return in_cpu(gpr + static_cast<int32_t>(guest) * 8); }
};

// The place in TranslationArea::spare where Runtime::look_up leaves the linear address.
inline constexpr int32_t kLinearSpare = 24;

// A look-up in a TlbTable: an address, shifted by kTlbShift and masked by kTlbMask, is the distance of its TlbAccess
// from the first. What is in the first is so far from the table:
constexpr int32_t tlb_field(size_t field) { return static_cast<int32_t>(offsetof(cpu::TlbTable, accesses) + field); }
inline constexpr int32_t kTlbReadTag = tlb_field(offsetof(cpu::TlbAccess, read_tag)),
                         kTlbWriteTag = tlb_field(offsetof(cpu::TlbAccess, write_tag)),
                         kTlbAddend = tlb_field(offsetof(cpu::TlbAccess, addend)),
                         kTlbPageState = tlb_field(offsetof(cpu::TlbAccess, page_state));
inline constexpr unsigned kTlbAccessLog = std::bit_width(sizeof(cpu::TlbAccess)) - 1;
static_assert(std::has_single_bit(sizeof(cpu::TlbAccess)));
inline constexpr uint8_t kTlbShift = kPageShift - kTlbAccessLog;
inline constexpr uint32_t kTlbMask = (cpu::kTlbSize - 1) << kTlbAccessLog;

// An instruction that the interpreter's handler executes for translated code, if it comes to that.
struct Site {
  // It, and what is behind it and says that it has run to its end. Null until it is first executed (ops_of()).
  const cpu::Op* ops = nullptr;
  cpu::Block* block = nullptr;
  // Where to go on when a store has ended the block: behind the instruction, or at what it branches to. kDynamic: at
  // TranslationArea::spare[1].
  uint64_t leave_rip = 0;
  static constexpr uint64_t kDynamic = ~uint64_t{0};
  uint64_t calls = 0;  // how often the interpreter has executed it
  uint16_t place = 0;  // from the start of the block
  x86::Op code = x86::Op::kInvalid;
  bool emitted = false;  // there is code for it, which has left the fast path
  bool leaves = false;   // the interpreter goes on behind it
  bool is_last = false;
};

// A way out of a block. Until it is linked it returns to the run loop.
struct Exit {
  uint64_t target = 0;
  uint8_t* jump = nullptr;  // displacement of the jump to change when the target is known; null: never linked
  Gpa page = 0;             // the physical page of the block
  uint32_t mode_key = 0;
  bool flags_in_host = false;  // EFLAGS are the guest's; else they are saved
  bool crosses = false;        // the target is on another page: its mapping is checked on the way
  bool of_stale = false;       // the first jump of a stale block, which may get its instruction back
  // Left by where a window of this translation is on two pages, which has no plain version to go on in.
  struct Translation* split = nullptr;
};

// A range, and how its place fares with it.
struct RangePlace {
  cpu::AccessRange* range = nullptr;
  cpu::RangeRecord* record = nullptr;
  uint8_t* patience = nullptr;
};

// The host code of a Block.
struct Translation {
  // How places in user code find memory. First the TLB is asked; on trial, each has a range; then those keep theirs
  // that it is of use to. A block without such places begins with the last stage.
  // And one in which each access is looked up in the TLB by itself, where an access of those on trial and after it goes
  // on that is not where the others are that it was checked with.
  enum class Stage : uint8_t { kFirst, kTrial, kLast, kPlain };
  // Where one of its instructions begins, and where it has the flags (BlockEmitter::Flags).
  struct Restart {
    const uint8_t* code;
    uint8_t flags;
  };
  // A jump that has been linked to it, and to which of its entries.
  struct Incoming {
    uint8_t* jump;
    const uint8_t* Translation::* entry;
  };

  cpu::Block* block = nullptr;
  Gpa page = 0;
  uint32_t exec_id = 0;             // what TlbTable::exec_ids has while the block's page leads where it did
  Gpa page2 = 0;                    // of an instruction that crosses, likewise
  uint32_t exec_id2 = 0;            // 0: there is none
  uint64_t jump_salt = 0;           // of the block's mode (Translator::jump_salt)
  bool entered_with_flags = false;  // in EFLAGS: has an entry for that from the start
  bool stale = false;               // code has been written to its page: the first jump leads out
  Stage stage = Stage::kFirst;
  Translation* plain = nullptr;   // on trial and after it
  std::vector<Restart> restarts;  // kPlain: of each instruction
  static constexpr size_t kCountBytes = 12;
  uint8_t* count = nullptr;          // the code that counts the entries
  uint32_t* entries_left = nullptr;  // of the stage, while that `is_counted`
  bool is_counted = false;
  uint64_t counted_since = 0;  // time-stamp
  uint8_t idle_counts = 0;     // first stage: how often it was not entered often enough for the next
  uint8_t trials = 0;          // it is or was in the last of so many
  uint8_t splits = 0;          // how often one of its windows was on two pages
  size_t first_range = 0, range_count = 0;
  std::vector<Incoming> incoming;
  // Entered with flags saved, with flags in EFLAGS, and with flags saved from a place that has not looked at the TLB.
  const uint8_t* entry_saved = nullptr;
  const uint8_t* entry_flags = nullptr;
  const uint8_t* entry_checked = nullptr;
  uint8_t* start = nullptr;              // entry_saved, to write at
  const uint8_t* way_out = nullptr;      // leaves with rip at the block
  std::array<uint8_t, 5> first_bytes{};  // what a stale block's jump overwrites
  uint32_t host_bytes = 0;
  Exit self;  // while the block is stale, to what has taken its place
};

}  // namespace kite::jit
