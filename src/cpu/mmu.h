// The memory side of the CPU below the TLB's fast path: translation, guest-physical accesses, and linear accesses at a
// privilege of one's choice. A view on a Cpu, made where it is needed; its functions have the Cpu's threading rules.
#pragma once

#include <cstdint>

#include "cpu/cpu.h"

namespace kite::cpu {

// MAXPHYADDR: what CPUID.80000008H says and what page-table entries, CR3 and MTRRs are checked against.
inline constexpr unsigned kPhysicalBits = 40;

class Mmu {
 public:
  explicit Mmu(Cpu& cpu) : cpu_(cpu) {}

  // The rights of the running program; of an explicit access at `cpl`; of an implicit access to a descriptor table or
  // TSS, which SMAP holds from user pages whatever RFLAGS.AC says (SDM 4.6.1).
  [[nodiscard]] TlbKind current_kind() const;
  [[nodiscard]] TlbKind kind_for(uint8_t cpl) const;
  [[nodiscard]] TlbKind system_kind() const;

  // The filled entry that grants `access` at `linear`, or null after raising #PF, or #GP(0) / #SS(0) by `segment` for a
  // non-canonical address. Good until the next fill of the same slot, flush, or call out through CpuIo.
  TlbEntry* entry(uint64_t linear, TlbKind kind, Access access, x86::Seg segment);
  // As entry(), but says what is wrong instead of raising it.
  struct Fault {
    bool canonical = true;
    uint32_t error_code = 0;
    uint64_t linear = 0;  // the address that was translated: CR2
  };
  TlbEntry* lookup(uint64_t linear, TlbKind kind, Access access, Fault& fault);
  void count_miss(Access access);
  // Where `linear` leads to, whatever the rights; changes nothing, not even accessed bits. For debuggers.
  std::optional<Gpa> where(uint64_t linear);

  // 1 to 4096 bytes, all or nothing as far as faults go. No alignment check, no breakpoints.
  bool read(TlbKind kind, uint64_t linear, void* to, unsigned bytes, x86::Seg segment = x86::Seg::kDs);
  bool write(TlbKind kind, uint64_t linear, const void* from, unsigned bytes, x86::Seg segment = x86::Seg::kDs);
  bool probe(TlbKind kind, uint64_t linear, unsigned bytes, Access access, x86::Seg segment = x86::Seg::kDs);
  // Up to 8 bytes, as one host access when they are aligned memory. `access` is kRead or kReadWrite.
  bool read_value(TlbKind kind, uint64_t linear, unsigned bytes, uint64_t& out, x86::Seg segment,
                  Access access = Access::kRead);
  bool write_value(TlbKind kind, uint64_t linear, unsigned bytes, uint64_t value, x86::Seg segment);
  // Atomically sets and clears bits of one byte, as the processor does with the accessed and busy bits of descriptors.
  // `before` gets the byte as it was. False: an exception was raised.
  bool system_update(uint64_t linear, uint8_t set, uint8_t clear, uint8_t& before);

  // Guest-physical accesses inside one page: memory, the local APIC page, or CpuIo.
  uint64_t physical_read(Gpa address, unsigned bytes);
  void physical_write(Gpa address, unsigned bytes, uint64_t value);
  // The memory that holds [address, address + bytes), or null. Good until the memory map changes.
  const PhysicalRange* range_at(Gpa address, unsigned bytes);

  // Reads the four PDPTEs at `cr3` (SDM 4.4.1). False: a present one has reserved bits set; nothing is changed then.
  bool load_pdptes(uint64_t cr3);
  // Of addresses that are used now: as wide as the paging mode in force. Of bases that registers hold: as wide as the
  // CPU can ever use (SDM 1 3.3.7.1).
  [[nodiscard]] bool canonical(uint64_t linear) const;
  [[nodiscard]] bool canonical_base(uint64_t linear) const;
  // The address of a data access without its LAM metadata (SDM 1 3.3.7.3).
  [[nodiscard]] uint64_t untagged(uint64_t linear) const;

 private:
  struct Translation {
    Gpa page = 0;
    uint8_t rights = 0;
    uint8_t shift = kPageShift;
    bool global = false;
    uint64_t leaf = 0;                 // the entry that maps it, of 8 bytes
    const uint8_t* leaf_at = nullptr;  // null: its table is not all memory, or of 4 bytes
  };
  // One paging-structure entry that a walk has used.
  struct Step {
    uint8_t* host = nullptr;  // null: not in writable memory, accessed and dirty bits cannot be set
    Gpa address = 0;
    uint64_t value = 0;
  };
  struct Walk;
  enum class Outcome : uint8_t { kDone, kFault, kRetry };

  bool translate(uint64_t linear, TlbKind kind, Access access, Translation& out, uint32_t& error);
  Outcome walk(uint64_t linear, TlbKind kind, Access access, Translation& out, uint32_t& error);
  bool begin(Walk& walk, uint64_t linear) const;
  bool descend(Walk& walk, uint64_t linear, uint32_t& error);
  [[nodiscard]] static Gpa page_base(const Walk& walk);
  Outcome mark_used(Walk& walk, Access access);
  [[nodiscard]] uint64_t reserved_bits(unsigned shift, bool leaf) const;
  [[nodiscard]] bool is_leaf(uint64_t entry, unsigned shift) const;
  [[nodiscard]] uint8_t rights_of(const Walk& walk, TlbKind kind) const;
  // The data rights that the page's protection key takes away.
  [[nodiscard]] uint8_t key_forbids(const Walk& walk, TlbKind kind);
  [[nodiscard]] bool no_execute() const;
  uint64_t read_entry(Gpa address, unsigned bytes, Step& step);

  void fill(TlbTable& table, TlbKind kind, uint64_t linear, const Translation& translation);
  bool is_whole(const Translation& translation);
  void fill_neighbours(TlbTable& table, TlbKind kind, uint64_t linear, const Translation& translation);
  [[nodiscard]] static bool neighbour(const Translation& of, int step, Translation& found);
  TlbEntry::Target classify(Gpa page, uintptr_t& host, std::atomic<uint8_t>*& page_state);
  bool is_apic_page(Gpa page) const;
  uint64_t apic_read(Gpa address, unsigned bytes);
  void apic_write(Gpa address, unsigned bytes, uint64_t value);
  void write_device(Gpa address, const void* from, unsigned bytes);
  void store_to_range(const PhysicalRange& range, Gpa address, const void* from, unsigned bytes);
  uint64_t load_through(TlbKind kind, const TlbEntry& entry, uint64_t linear, unsigned bytes);
  void store_through(TlbKind kind, const TlbEntry& entry, uint64_t linear, unsigned bytes, uint64_t value);
  [[nodiscard]] uint64_t wrap(uint64_t linear) const;
  // The one or two pages that [linear, linear + bytes) lies in.
  struct Span {
    Gpa address[2] = {};
    unsigned bytes[2] = {};
  };
  bool span(TlbKind kind, uint64_t linear, unsigned bytes, Access access, x86::Seg segment, Span& out);

  Cpu& cpu_;
};

}  // namespace kite::cpu
