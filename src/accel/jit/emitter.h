// BlockEmitter: one block of guest instructions as host code. Files: emitter.cc (the block, flags, ways out),
// emit_memory.cc (addresses and the TLB), emit_integer.cc, emit_moves.cc, emit_branches.cc, emit_vector.cc,
// emit_x87.cc, emit_windows.cc.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "accel/jit/translator.h"

namespace kite::jit {

// Whether the mode that the block was decoded under is one that code is emitted for.
bool can_translate(const cpu::Block& block);

class BlockEmitter {
 public:
  // `space` is used by one emitter at a time.
  BlockEmitter(Translator& translator, cpu::Cpu& cpu, cpu::Block& block, Translation& translation, Assembler& hot,
               Assembler& cold, EmitterSpace& space);
  void emit();

 private:
  // Where the guest's arithmetic flags are.
  enum class Flags : uint8_t {
    kHost,        // EFLAGS alone
    kHostOrAnew,  // EFLAGS, and they may be lost: recipe_ makes them
    kAnew,        // nowhere: recipe_ makes them
    kSaved,
    kBoth  // EFLAGS, and saved
  };
  // How to make the flags of an instruction once more from registers (emit_flags.cc).
  struct Recipe {
    enum class Kind : uint8_t {
      kNone,
      kAdd,
      kSub,
      kCompare,
      kTest,
      kLogic,
      kNegate,
      kIncrement,  // and kDecrement: the carry flag is that of the saved flags
      kDecrement
    } kind = Kind::kNone;
    uint8_t size = 0;
    uint8_t to = 0, from = kNone;  // guest registers; none: `immediate`
    uint8_t made_at = 0;           // the instruction's index
    uint16_t operands = 0;         // a bit a guest register
    uint32_t immediate = 0;
    bool operator==(const Recipe&) const = default;
  };
  static bool keeps_carry(const Recipe& recipe) {
    return recipe.kind == Recipe::Kind::kIncrement || recipe.kind == Recipe::Kind::kDecrement;
  }
  // What an instruction does with flags and registers.
  struct Effects {
    bool reads = true;     // flags, or who knows what else
    bool consumes = true;  // may leave the fast path, where all flags are wanted
    bool makes_carry = false, makes_others = false;
    uint16_t writes = 0xffff;  // a bit a guest register
  };
  // What becomes of an instruction.
  enum class Outcome : uint8_t {
    kInterpret,  // not emitted: the interpreter's handler is called
    kDone,       // emitted
    kEnd,        // emitted, and the block ends with it
  };
  static constexpr int8_t kNoWindow = -1;
  // A memory operand that may be accessed: `mem` is where it is in the host's memory.
  struct Place {
    Mem mem;
    unsigned bytes = 0;
    // Where the Cpu has the state byte's address, for a store to a constant address. For other stores it is in R11.
    int32_t page_state = -1;
    bool by_range = false;      // found by one: stores look at no state, R11 is nothing
    bool elements = false;      // spare[0] of them, of `bytes` each, end at RDI + R10
    int8_t window = kNoWindow;  // its number; `mem` is from that window's place, in R10
  };
  // Windows whose place R10 is and whose state byte R11 leads to.
  struct AtHand {
    int8_t place = kNoWindow, state = kNoWindow;
  };
  // What is to be accessed, by its linear address.
  struct Access {
    Mem address{};         // from R10, if that is the address or its base
    bool in_r10 = false;   // R10 becomes the host's
    uint8_t base = kNone;  // the guest register that R10 is; none: R10 is all of the address
    int32_t lead = 0;      // what is checked begins at `address` + `lead`
    unsigned bytes = 0;
    bool write = false;
    unsigned alignment = 0;  // 0, or a power of two that the address must be a multiple of
    bool has_r11 = false;    // R11 is not changed between the look-up and the access, unless it is a store
    // Where the TLB is asked in line, R10 becomes the host's of `address`; or R10 + R11 is it, where R11 may be.
    bool whole = false;
  };
  // Where an access is, in the guest's registers; cpu::kZeroReg: none.
  struct GuestAddress {
    unsigned base = cpu::kZeroReg, index = cpu::kZeroReg, scale = 0;
    int64_t disp = 0;
  };
  // What one check has covered: `low` .. `high` - 1 from the base and index as they are now (emit_windows.cc).
  struct Window {
    bool open = false;
    GuestAddress at{};
    int64_t low = 0, high = 0;
    int64_t origin = 0;     // what TranslationArea::window_places is the host's address of
    bool write = false;     // stores are, too
    bool by_range = false;  // as in Place
    uint32_t kept = 0;      // its number in kept_
    [[nodiscard]] bool has_state() const { return write && !by_range; }
    [[nodiscard]] bool has(const GuestAddress& other) const {
      return at.base == other.base && at.index == other.index && at.scale == other.scale;
    }
  };
  // Where a window's place and its state byte's address are written to the Cpu, and whether anything reads them there:
  // often all accesses are made while R10 and R11 have them. Else the writing is taken out again.
  struct Kept {
    const uint8_t *place = nullptr, *state = nullptr, *end = nullptr;
    bool reads_place = false, reads_state = false;
  };
  // A window that an instruction opens, as it is behind that.
  struct Opened {
    int8_t number = kNoWindow;
    Window window{};
  };
  static constexpr uint64_t kNoRip = ~uint64_t{0};
  // Code out of line, emitted behind the block.
  struct Detour {
    enum class Kind : uint8_t {
      kInterpret,
      kHandOver,
      kNotice,
      kLeave,
      kForget /* predicted returns */,
      kLoad /* units */,
      kPlainVersion
    } kind = Kind::kInterpret;
    uint8_t* jump = nullptr;          // leads to it
    const uint8_t* resume = nullptr;  // kInterpret, kNotice, kForget, kLoad: where it goes on
    Site* site = nullptr;             // kLoad of x87 registers: who takes over when they cannot be loaded
    Exit* exit = nullptr;             // kLeave, kForget
    bool save = false;                // kLeave: EFLAGS have to be saved first
    bool links_behind = false;        // kLeave: and then comes the jump that is linked
    uint32_t units = 0;               // kInterpret, kNotice, kLoad: what code at `resume` expects in the host's units
    uint64_t fip = kNoRip;            // the last x87 instruction, when the image does not have it yet
    uint64_t resume_rip = 0;          // kInterpret, kNotice: of the instruction at `resume`
    Place place{};                    // kNotice
    // kInterpret, kHandOver: what the TLB may know all the same, and where it goes on then.
    RangePlace range{};
    const uint8_t* resume_access = nullptr;
    Access access{};
    Recipe recipe{};                 // of flags that are nowhere
    unsigned index = 0;              // kPlainVersion: the instruction's
    AtHand at_hand{};                // kInterpret, kNotice: at `resume`
    int32_t stack_lag = 0;           // kInterpret: likewise
    std::array<Opened, 2> opened{};  // kInterpret
  };

  // --- the block (emitter.cc) ---
  void decode();
  void begin();
  void count_entries();
  Outcome next();
  [[nodiscard]] bool can_run_again(uint64_t target) const;
  void run_again(std::optional<Condition> condition);
  [[nodiscard]] bool begins_again() const;
  [[nodiscard]] bool has_places() const;
  void check_page(uint64_t address, uint32_t exec_id);
  Outcome instruction();
  void interpret();
  void hand_over();
  void end();
  void detours();
  Site& site();
  Site& new_site(bool leaves);
  void go_on(const Detour& detour);
  void reload(const Detour& detour);
  void go_back(const Detour& detour);
  void notice(const Detour& detour);
  void detour_range(const Detour& detour);
  // Answers the jump that is taken when the TLB has not the page.
  uint8_t* look_up_tlb(Assembler& a, const Access& access);
  uint8_t* look_at_state(Assembler& a) const;
  void detour_interpret(uint8_t* jump);  // resumed behind the instruction
  void detour_hand_over(uint8_t* jump);
  [[nodiscard]] const x86::Insn& insn() const { return insns_[index_]; }
  [[nodiscard]] const cpu::Op& op() const { return ops_[index_]; }
  [[nodiscard]] uint16_t place_in_block() const { return static_cast<uint16_t>(op().rip - block_.rip); }
  [[nodiscard]] bool is_last() const { return index_ + 1 == count_; }

  // --- logs (emit_log.cc) ---
  void log_code(const uint8_t* hot, const uint8_t* cold) const;
  void log_block() const;
  void log_decision(Outcome outcome, Flags flags_before, size_t first_detour) const;
  [[nodiscard]] std::string_view why_interpreted() const;
  void note_look_up(unsigned bytes, bool write, std::string_view how = {});

  // --- flags (emit_flags.cc) ---
  void save_flags();        // so that they are in memory; RAX and R11 may be lost
  void guard_flags();       // so that EFLAGS may be lost; likewise
  void guard_flags_here();  // the same, when load_flags() follows before the next instruction
  void load_flags();        // so that EFLAGS are the guest's; likewise
  void begin_count();
  void end_count();
  void flags_made();
  void flags_made_by(Recipe::Kind kind);
  static Recipe::Kind recipe_kind(unsigned operation);
  void flags_lost();
  [[nodiscard]] bool flags_in_host() const { return flags_ != Flags::kSaved && flags_ != Flags::kAnew; }
  [[nodiscard]] Recipe recipe_of_lost() const { return flags_ == Flags::kAnew ? recipe_ : Recipe{}; }
  static Effects effects_of(const x86::Insn& insn);
  [[nodiscard]] bool can_do_without_flags() const;
  [[nodiscard]] bool are_dead_from(unsigned number, const Recipe& recipe) const;
  [[nodiscard]] Recipe recipe_of_count() const;
  [[nodiscard]] bool carry_is_saved() const;
  [[nodiscard]] bool carry_is_dead() const;
  [[nodiscard]] bool flags_are_dead() const;
  void check_recipe();
  void make_anew(Assembler& a, const Recipe& recipe) const;
  void emit_save(Assembler& a);
  void load_eflags(Assembler& a) const;

  // --- registers ---
  static bool in_host(unsigned guest) { return kHost[guest] != kNone; }
  // The host register that holds the guest's; one that lives in the Cpu is loaded into `scratch`.
  Reg use(Assembler& a, unsigned guest, Reg scratch) const;
  Reg use(unsigned guest, Reg scratch) { return use(a_, guest, scratch); }
  // The register to make the new value of the guest's in, and its way to the Cpu when it lives there.
  static Reg target(unsigned guest, Reg scratch) { return in_host(guest) ? static_cast<Reg>(kHost[guest]) : scratch; }
  void put(unsigned guest, Reg value);
  // Where R10 and R11 have what the Cpu has too, from one instruction to the next: likewise, in these. An instruction
  // that does with them nothing else says so by keep_copies(); else there are no copies behind it.
  Reg read(unsigned guest);
  Reg read(const x86::Operand& operand) { return operand.high_byte ? use(operand, kRax) : read(operand.reg); }
  Reg fresh(unsigned guest);                        // to be overwritten as a whole
  [[nodiscard]] Reg copy_of(unsigned guest) const;  // kRax: there is none
  void forget_copy(Reg scratch);
  void keep_copies() { keeps_copies_ = true; }
  [[nodiscard]] bool leaves_copies() const;
  // A register operand to read; AH, CH, DH and BH come in AL.
  Reg use(const x86::Operand& operand, Reg scratch);
  void byte_to_al(const x86::Operand& operand);  // from a byte register; flags are kept
  // The byte register of a REX-less encoding that is AH, CH, DH or BH until end_high_byte(). Flags are kept.
  unsigned begin_high_byte(const x86::Operand& operand);
  void end_high_byte(const x86::Operand& operand);

  // --- memory (emit_memory.cc) ---
  [[nodiscard]] bool address_is_constant() const;
  [[nodiscard]] uint64_t constant_address() const;
  void effective_address(unsigned size, Reg to);
  void linear_to_r10();
  // Checks that `bytes` at the instruction's operand, or at `address`, may be accessed. EFLAGS are lost, and RAX, R10
  // and R11; R10 and R11 are the Place's afterwards. With `simple` it does not depend on guest registers.
  // What must be aligned (to `alignment`, a power of two) and is not, is the interpreter's.
  Place look_up(unsigned bytes, bool write, bool simple = false, unsigned alignment = 0) {
    return look_up({.bytes = bytes, .write = write, .alignment = alignment}, simple);
  }
  // What is accessed next, before R11 and the flags are.
  Place look_up_source(unsigned bytes) { return look_up({.bytes = bytes, .has_r11 = true}, false); }
  Place look_up(const Access& access, bool simple);
  Place look_up_at(const Mem& address, Access access, Window window);
  Place look_up_from_slot(Mem address, Access access, Window window);
  Place look_up_constant(uint64_t linear, unsigned bytes, bool write);
  Place look_up_r10(Access access, Window window);
  // True: the TLB has been asked.
  bool check(const Access& access);
  void check_range(const Access& access, const RangePlace& place);
  Place look_up_stack(int32_t offset, bool write);
  void move_stack(int32_t by);
  [[nodiscard]] bool goes_on_at_stack(const Place& place) const;
  void pushed(Place& place);
  void miss(uint8_t* jump);  // the instruction is left to the interpreter; EFLAGS are lost
  // After a store to `place`; the instruction has no more to do. RAX is lost, EFLAGS too.
  void stored(const Place& place, uint64_t leave_rip);
  void stored(const Place& place) { stored(place, op().next_rip()); }
  [[nodiscard]] bool memory_allowed() const;
  [[nodiscard]] uint8_t lock_prefix() const;  // of the current instruction; 0: it needs none
  [[nodiscard]] static bool is_memory(const x86::Operand& o) { return o.kind == x86::OperandKind::kMem; }
  [[nodiscard]] static bool is_register(const x86::Operand& o) { return o.kind == x86::OperandKind::kGpr; }
  [[nodiscard]] static bool is_immediate(const x86::Operand& o) { return o.kind == x86::OperandKind::kImm; }

  void miss_access(uint8_t* jump);  // the same for what is not known of memory

  // --- windows (emit_windows.cc) ---
  [[nodiscard]] bool has_ranges() const {
    return translation_.stage == Translation::Stage::kTrial || translation_.stage == Translation::Stage::kLast;
  }
  [[nodiscard]] bool is_plain() const { return translation_.stage == Translation::Stage::kPlain; }
  static uint16_t written_by(const x86::Insn& insn, const Effects& known);
  static bool may_be_near_others(const x86::Insn& insn);
  [[nodiscard]] std::optional<int64_t> moved(unsigned number, unsigned guest) const;
  [[nodiscard]] bool finds(unsigned number, const GuestAddress& at, int64_t& offset, unsigned& bytes) const;
  std::optional<Place> look_up_window(const GuestAddress& at, unsigned bytes, bool write, unsigned alignment);
  [[nodiscard]] Window plan_window(const GuestAddress& at, unsigned bytes, bool write, unsigned alignment) const;
  static void widen(Access& access, const Window& window);
  int8_t open_window(const Window& window);
  void move_windows(bool interpreted);
  [[nodiscard]] bool keeps_scratch(unsigned number) const;
  [[nodiscard]] bool begins_with_scratch() const;
  [[nodiscard]] bool goes_on_storing(const Place& place) const;
  static Place join(const Place& one, const Place& other);
  void detour_plain_version(const Detour& detour);
  void note_windows(Detour& detour);
  void keep_at_hand(Assembler& a, const AtHand& at_hand) const;
  void forget_unread();
  void look_again(const Opened& opened, std::vector<uint8_t*>& unknown);
  [[nodiscard]] Mem window_place(size_t number) const {
    return in_cpu(layout_.window_places + static_cast<int32_t>(number * sizeof(uint64_t)));
  }
  [[nodiscard]] Mem window_state(size_t number) const {
    return in_cpu(layout_.window_states + static_cast<int32_t>(number * sizeof(uint64_t)));
  }

  // --- the host's units; before anything else of an instruction: RAX, R10, R11 and EFLAGS may be lost ---
  void need_vectors();  // emit_vector.cc
  void need_x87();      // emit_x87.cc
  void write_instruction_pointer(Assembler& a, uint64_t rip) const;
  void write_instruction_pointer() { write_instruction_pointer(a_, std::exchange(fip_, kNoRip)); }
  void note_operand();

  // --- instructions ---
  Outcome vectors();  // emit_vector.cc
  Outcome wide_vectors();
  Outcome narrow_vectors();
  Outcome clear_vectors();
  Outcome load_mxcsr();
  Outcome store_mxcsr();
  Outcome x87();  // emit_x87.cc
  Outcome x87_memory();
  Outcome integer();  // emit_integer.cc
  Outcome binary(unsigned operation);
  Outcome binary_to_memory(unsigned operation);
  Outcome test();
  Outcome unary(uint32_t opcode, unsigned extension, bool makes_flags);
  Outcome count(bool adds);
  Outcome shift(unsigned extension);
  Outcome shift_double(uint32_t opcode);
  Outcome multiply_two();
  Outcome multiply_wide(unsigned extension);
  Outcome divide(bool is_signed);
  Outcome bit_test(unsigned extension);
  Outcome scan(uint32_t opcode, uint8_t prefix);
  Outcome set_carry(uint8_t opcode);
  Outcome binary_to_high_byte(unsigned operation);
  Outcome divide_byte();
  Outcome bit_string(unsigned extension);
  Outcome bit_fields();  // emit_bits.cc
  Outcome bmi(bool makes_flags);
  Outcome multiply_without_flags();
  Outcome add_with_one_flag(uint8_t prefix);
  Outcome checksum();
  Outcome load_ah();
  Outcome store_ah();
  Outcome moves();  // emit_moves.cc
  Outcome move();
  Outcome extend(bool is_signed);
  Outcome load_address();
  Outcome conditional_move();
  Outcome set_byte();
  Outcome exchange();
  Outcome exchange_add();
  Outcome compare_exchange();
  Outcome compare_exchange_pair(unsigned bytes);
  Outcome move_to_high_byte();
  Outcome move_swapped();
  Outcome swap_bytes();
  Outcome widen();
  Outcome push();
  Outcome pop();
  Outcome leave_frame();
  Outcome strings();  // emit_strings.cc
  Outcome repeat_within_page();
  void look_up_elements(Reg first, unsigned log, bool write);
  void notice_elements(unsigned size);
  Outcome system();  // emit_system.cc
  Outcome change_access(bool set);
  Outcome read_base(x86::Seg segment);
  Outcome write_base(x86::Seg segment);
  void require_control(uint64_t bit);
  Outcome change_flag(uint64_t flag, bool set);
  Outcome clear_interrupt_flag();
  Outcome set_interrupt_flag();
  Outcome push_flags();
  Outcome swap_gs();
  Outcome move_from_segment();
  bool require_privilege();
  Outcome pause();
  void execute_and_go_on();
  Outcome branches();  // emit_branches.cc
  Outcome jump_if();
  Outcome jump();
  Outcome call();
  Outcome ret();
  Outcome count_and_jump();
  bool read_target();
  void push_return(uint64_t leave_rip);
  void predict_return(Exit* exit);  // before a call of the host's, which may lose RAX and EFLAGS
  void return_here();               // behind it
  void call_to(uint64_t target);
  Exit& new_exit(uint64_t target);
  void leave_by(uint8_t* jump, Exit& exit, bool link);
  void check_alarm(Exit& exit);
  [[nodiscard]] bool looks_at_alarm_early() const;
  // Leaves for `target`; nothing is emitted behind it that is reached from here.
  void go_to(uint64_t target, uint64_t from);
  Reg add_salt(Assembler& a);
  // Of the code for the address in R10, or the interpreter takes over. RAX and R11 are lost; flags have been saved.
  Mem find_code(Assembler& a, bool looks_at_alarm);
  [[nodiscard]] bool target_is_safe(uint64_t target) const;

  Translator& t_;
  cpu::Cpu& cpu_;
  cpu::Block& block_;
  Translation& translation_;
  Assembler &a_, &cold_;
  const Layout& layout_;
  [[nodiscard]] size_t kind() const { return (block_.mode_key & cpu::mode::kKindMask) >> cpu::mode::kKindShift; }
  int32_t tlb_;  // the table of the block's rights
  bool wide_;    // 64-bit code
  unsigned pointer_bytes_;
  unsigned count_ = 0, index_ = 0;
  uint64_t end_rip_ = 0;  // behind the block
  bool is_copy_ = false;  // what is emitted is the block's second run, from run_again()
  bool has_copy_ = false;
  static constexpr unsigned kNoBranch = ~0u;
  unsigned alarm_seen_ = kNoBranch;  // the branch for which the alarm has been looked at
  bool ends_ = false;                // the current instruction cannot be resumed behind: its slow ways hand over
  Flags flags_ = Flags::kSaved;
  Recipe recipe_{};
  uint32_t units_ = 0;     // what is known to be in the host's units (TranslationArea::units)
  uint64_t fip_ = kNoRip;  // as in Detour
  Site* site_ = nullptr;   // of the current instruction, once it has one
  friend struct EmitterSpace;
  // In the EmitterSpace; `count_` of the arrays.
  std::array<x86::Insn, cpu::BlockCache::kMaxOps>& insns_;
  std::array<cpu::Op, cpu::BlockCache::kMaxOps>& ops_;
  std::array<Effects, cpu::BlockCache::kMaxOps>& effects_;
  std::array<uint16_t, cpu::BlockCache::kMaxOps>& written_;       // written_by()
  std::array<const uint8_t*, cpu::BlockCache::kMaxOps>& starts_;  // of what each became; null: nothing
  std::vector<Detour>& detours_;
  std::vector<size_t>& unresumed_;  // detours that go on behind the current instruction
  std::array<Window, cpu::TranslationArea::kWindows> windows_{};
  std::vector<int8_t>& opened_;  // by the current instruction
  std::vector<Kept>& kept_;
  AtHand at_hand_;
  int32_t stack_lag_ = 0;  // what the guest's stack pointer has not been moved by yet
  static constexpr std::array<Reg, 2> kCopies = {kR10, kR11};
  std::array<uint8_t, kCopies.size()> copies_{kNone, kNone};  // of which guest registers they are
  std::array<bool, kCopies.size()> is_operand_{};             // of the current instruction
  bool keeps_copies_ = false;
  Place unlooked_;        // has been stored to, without a look at the state byte yet; of 0 bytes: nothing
  std::string look_ups_;  // of the current instruction, for the log
};

// Where a block is put together; kept for the next one, since most blocks use a small part of it.
struct EmitterSpace {
  std::array<x86::Insn, cpu::BlockCache::kMaxOps> insns;
  std::array<cpu::Op, cpu::BlockCache::kMaxOps> ops;
  std::array<BlockEmitter::Effects, cpu::BlockCache::kMaxOps> effects;
  std::array<uint16_t, cpu::BlockCache::kMaxOps> written;
  std::array<const uint8_t*, cpu::BlockCache::kMaxOps> starts;
  std::vector<BlockEmitter::Detour> detours;
  std::vector<size_t> unresumed;
  std::vector<int8_t> opened;
  std::vector<BlockEmitter::Kept> kept;
};

}  // namespace kite::jit
