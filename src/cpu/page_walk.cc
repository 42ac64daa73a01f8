// Page walks: 32-bit, PAE, 4-level and 5-level paging (SDM 3A chapter 4).
#include "cpu/mmu.h"
#include "support/bits.h"

namespace kite::cpu {

namespace {

namespace cr0 = x86::cr0;
namespace cr4 = x86::cr4;
namespace pf = x86::pf;

// Bits of paging-structure entries.
constexpr uint64_t kPresent = 1u << 0, kWritable = 1u << 1, kUserPage = 1u << 2, kAccessed = 1u << 5, kDirty = 1u << 6,
                   kLarge = 1u << 7, kGlobal = 1u << 8, kNoExecute = 1ull << 63;
constexpr uint64_t kAddressMask = low_mask(kPhysicalBits) & ~(kPageSize - 1);
constexpr unsigned kMaxLevels = 5;

}  // namespace

struct Mmu::Walk {
  std::array<Step, kMaxLevels> steps{};
  unsigned count = 0;
  unsigned shift = 0;  // of the level that is read next; at the end, of the page
  unsigned index_bits = 9;
  unsigned entry_bytes = 8;
  Gpa table = 0;
  bool user = true, writable = true, no_execute = false;

  [[nodiscard]] const Step& leaf() const { return steps[count - 1]; }
};

bool Mmu::no_execute() const { return (cpu_.arch.efer & x86::efer::kNxe) != 0; }

bool Mmu::canonical(uint64_t linear) const {
  const unsigned bits = (cpu_.arch.cr4 & cr4::kLa57) != 0 ? 57 : 48;
  return static_cast<uint64_t>(sign_extend(linear, bits)) == linear;
}

bool Mmu::canonical_base(uint64_t linear) const {
  const unsigned bits = cpu_.has_feature(x86::FeatureWord::k7Ecx, 16) ? 57 : 48;
  return static_cast<uint64_t>(sign_extend(linear, bits)) == linear;
}

// [SDM 1 3.3.7.3] Bit 63 chooses who controls the masking, and is itself kept.
uint64_t Mmu::untagged(uint64_t linear) const {
  constexpr uint64_t kSign = bit(63);
  unsigned bits = 0;
  if ((linear & kSign) != 0)
    bits = (cpu_.arch.cr4 & cr4::kLamSup) == 0 ? 0 : (cpu_.arch.cr4 & cr4::kLa57) != 0 ? 57 : 48;
  else
    bits = (cpu_.arch.cr3 & x86::cr3::kLamU57) != 0 ? 57 : (cpu_.arch.cr3 & x86::cr3::kLamU48) != 0 ? 48 : 0;
  if (bits == 0 || !cpu_.code64) return linear;
  return (static_cast<uint64_t>(sign_extend(linear, bits)) & ~kSign) | (linear & kSign);
}

// Whether the entry that was read at `shift` maps a page.
bool Mmu::is_leaf(uint64_t entry, unsigned shift) const {
  if (shift == kPageShift) return true;
  if ((entry & kLarge) == 0) return false;
  if (shift == 22) return (cpu_.arch.cr4 & cr4::kPse) != 0;
  if (shift == 30) return cpu_.has_feature(x86::FeatureWord::k80000001Edx, 26);  // 1 GiB pages
  return shift == 21;
}

// SDM 4.3 (table 4-4 ff.), 4.4.2, 4.5.4: bits that fault when they are set in a present entry.
uint64_t Mmu::reserved_bits(unsigned shift, bool leaf) const {
  if ((cpu_.arch.cr4 & cr4::kPae) == 0) {
    if (!leaf || shift == kPageShift) return 0;
    // With PSE-36, bits 20:13 are address bits 39:32; what they could hold above MAXPHYADDR is reserved.
    static_assert(kPhysicalBits == 40);
    return cpu_.has_feature(x86::FeatureWord::k1Edx, 17) ? bit(21) : low_mask(22) & ~low_mask(13);
  }
  uint64_t reserved = low_mask(52) & ~low_mask(kPhysicalBits);
  if (!cpu_.long_mode()) reserved |= low_mask(63) & ~low_mask(52);
  if (!no_execute()) reserved |= kNoExecute;
  if (leaf && shift > kPageShift) reserved |= low_mask(shift) & ~low_mask(13);
  if (!leaf && shift != 21) reserved |= kLarge;
  return reserved;
}

// The paging-structure entry at `address`. Without memory there it reads as an unassigned bus does.
uint64_t Mmu::read_entry(Gpa address, unsigned bytes, Step& step) {
  step = {.address = address, .value = low_mask(bytes * 8)};
  const PhysicalRange* range = range_at(address, bytes);
  if (range == nullptr) return step.value;
  uint8_t* host = range->host + (address - range->start);
  step.value = bytes == 8 ? __atomic_load_n(reinterpret_cast<uint64_t*>(host), __ATOMIC_ACQUIRE)
                          : __atomic_load_n(reinterpret_cast<uint32_t*>(host), __ATOMIC_ACQUIRE);
  if (range->writable) step.host = host;
  return step.value;
}

// Follows the tables to the entry that maps the page. False: `error` has the P and RSVD bits of a page fault.
bool Mmu::descend(Walk& walk, uint64_t linear, uint32_t& error) {
  for (;;) {
    const uint64_t index = (linear >> walk.shift) & low_mask(walk.index_bits);
    const uint64_t entry =
        read_entry(walk.table + index * walk.entry_bytes, walk.entry_bytes, walk.steps[walk.count++]);
    if ((entry & kPresent) == 0) {
      error = 0;
      return false;
    }
    const bool leaf = is_leaf(entry, walk.shift);
    if ((entry & reserved_bits(walk.shift, leaf)) != 0) {
      error = pf::kPresent | pf::kReserved;  // [SDM 4.7]: a reserved bit is only met in a present entry
      return false;
    }
    walk.user &= (entry & kUserPage) != 0;
    walk.writable &= (entry & kWritable) != 0;
    walk.no_execute |= walk.entry_bytes == 8 && (entry & kNoExecute) != 0;
    if (leaf) return true;
    walk.table = entry & kAddressMask;
    walk.shift -= walk.index_bits;
  }
}

// What a table of `kind` may do with the page (SDM 4.6.1).
uint8_t Mmu::rights_of(const Walk& walk, TlbKind kind) const {
  const bool executable = !walk.no_execute;
  if (kind == TlbKind::kUser || kind == TlbKind::kUserAligned) {
    if (!walk.user) return 0;
    return static_cast<uint8_t>(TlbEntry::kRead | (walk.writable ? TlbEntry::kWrite : 0) |
                                (executable ? TlbEntry::kExecute : 0));
  }
  uint8_t rights = 0;
  const bool data = !walk.user || kind == TlbKind::kSupervisorUserOk;
  if (data) rights |= TlbEntry::kRead;
  if (data && (walk.writable || (cpu_.arch.cr0 & cr0::kWp) == 0)) rights |= TlbEntry::kWrite;
  if (executable && !(walk.user && (cpu_.arch.cr4 & cr4::kSmep) != 0)) rights |= TlbEntry::kExecute;
  return rights;
}

// [SDM 3A 4.6.2] Of 4- and 5-level paging only, and of data accesses only. Keys are part of what a fill depends on, so
// changes of the rights of a key that has been met flush the TLB (Cpu::keys_changed).
uint8_t Mmu::key_forbids(const Walk& walk, TlbKind kind) {
  if (!cpu_.long_mode() || (cpu_.arch.cr4 & (walk.user ? cr4::kPke : cr4::kPks)) == 0) return 0;
  const auto key = static_cast<unsigned>(field(walk.leaf().value, 62, 59));
  (walk.user ? cpu_.user_keys_met_ : cpu_.supervisor_keys_met_) |= static_cast<uint16_t>(1u << key);
  const uint32_t disabled = (walk.user ? cpu_.arch.pkru : cpu_.arch.pkrs) >> key * 2;
  const bool user_access = kind == TlbKind::kUser || kind == TlbKind::kUserAligned;
  if ((disabled & 1) != 0) return TlbEntry::kRead | TlbEntry::kWrite;
  return (disabled & 2) != 0 && (user_access || (cpu_.arch.cr0 & cr0::kWp) != 0) ? TlbEntry::kWrite : 0;
}

// Sets the accessed bits of the way, and the dirty bit for writes. An entry that changed since it was read is walked
// again: its new contents may mean something else (SDM 4.8).
Mmu::Outcome Mmu::mark_used(Walk& walk, Access access) {
  const bool write = access == Access::kWrite || access == Access::kReadWrite;
  for (unsigned i = 0; i < walk.count; ++i) {
    Step& step = walk.steps[i];
    const uint64_t wanted = step.value | kAccessed | (write && i + 1 == walk.count ? kDirty : 0);
    if (wanted == step.value || step.host == nullptr) continue;
    uint64_t expected = step.value;
    uint32_t expected32 = static_cast<uint32_t>(expected);
    const bool swapped =
        walk.entry_bytes == 8
            ? __atomic_compare_exchange_n(reinterpret_cast<uint64_t*>(step.host), &expected, wanted, false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
            : __atomic_compare_exchange_n(reinterpret_cast<uint32_t*>(step.host), &expected32,
                                          static_cast<uint32_t>(wanted), false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    if (!swapped) return Outcome::kRetry;
    step.value = wanted;
    const PhysicalRange* range = range_at(step.address, walk.entry_bytes);
    range->block->note_write(range->block_offset + (step.address - range->start), walk.entry_bytes);
  }
  return Outcome::kDone;
}

// Where a walk begins. False: it ends there, by a PDPTE that is not present.
bool Mmu::begin(Walk& walk, uint64_t linear) const {
  if ((cpu_.arch.cr4 & cr4::kPae) == 0) {
    walk.shift = 22;
    walk.index_bits = 10;
    walk.entry_bytes = 4;
    walk.table = cpu_.arch.cr3 & 0xfffff000;
  } else if (!cpu_.long_mode()) {
    const uint64_t pdpte = cpu_.arch.pdpte[(linear >> 30) & 3];
    if ((pdpte & kPresent) == 0) return false;
    walk.shift = 21;
    walk.table = pdpte & kAddressMask;
  } else {
    walk.shift = (cpu_.arch.cr4 & cr4::kLa57) != 0 ? 48 : 39;
    walk.table = cpu_.arch.cr3 & kAddressMask;
  }
  return true;
}

// The start of the page that the last entry maps.
Gpa Mmu::page_base(const Walk& walk) {
  const uint64_t leaf = walk.leaf().value;
  if (walk.shift == 22) return (leaf & 0xffc00000) | field(leaf, 20, 13) << 32;  // PSE-36
  return leaf & kAddressMask & ~low_mask(walk.shift);
}

std::optional<Gpa> Mmu::where(uint64_t linear) {
  if (!cpu_.long_mode()) linear = static_cast<uint32_t>(linear);
  if ((cpu_.arch.cr0 & cr0::kPg) == 0) return linear;
  Walk walk;
  uint32_t error = 0;
  if (!canonical(linear) || !begin(walk, linear) || !descend(walk, linear, error)) return std::nullopt;
  return page_base(walk) | (linear & low_mask(walk.shift));
}

Mmu::Outcome Mmu::walk(uint64_t linear, TlbKind kind, Access access, Translation& out, uint32_t& error) {
  Walk walk;
  error = 0;
  if (!begin(walk, linear) || !descend(walk, linear, error)) return Outcome::kFault;

  const uint8_t forbidden = key_forbids(walk, kind);
  auto rights = static_cast<uint8_t>(rights_of(walk, kind) & ~forbidden);
  const uint8_t needed = access == Access::kFetch  ? TlbEntry::kExecute
                         : access == Access::kRead ? TlbEntry::kRead
                                                   : TlbEntry::kWrite;
  if ((rights & needed) == 0) {
    error = pf::kPresent | ((forbidden & needed) != 0 ? pf::kProtectionKey : 0);
    return Outcome::kFault;
  }
  if (mark_used(walk, access) == Outcome::kRetry) return Outcome::kRetry;

  const uint64_t leaf = walk.leaf().value;
  // The first write through a clean page walks again, to set the dirty bit.
  if ((leaf & kDirty) == 0 && needed != TlbEntry::kWrite) rights &= static_cast<uint8_t>(~TlbEntry::kWrite);
  // Its neighbours are looked at as well: all of the table has to be memory.
  const bool has_neighbours =
      walk.entry_bytes == 8 && range_at(walk.leaf().address & ~(kPageSize - 1), kPageSize) != nullptr;
  out = {.page = page_base(walk) | (linear & low_mask(walk.shift) & ~(kPageSize - 1)),
         .rights = rights,
         .shift = static_cast<uint8_t>(walk.shift),
         .global = (leaf & kGlobal) != 0 && (cpu_.arch.cr4 & cr4::kPge) != 0,
         .leaf = leaf,
         .leaf_at = has_neighbours ? walk.leaf().host : nullptr};
  return Outcome::kDone;
}

// The page so many after one, if it may be used alike, without a change to its entry.
bool Mmu::neighbour(const Translation& of, int step, Translation& found) {
  found = of;
  if (of.shift != kPageShift) {
    found.page += static_cast<uint64_t>(step) * kPageSize;
    return true;
  }
  if (of.leaf_at == nullptr) return false;
  constexpr uint64_t kIgnored = low_mask(59) & ~low_mask(52), kForSoftware = 7u << 9;
  const uint64_t entry = __atomic_load_n(reinterpret_cast<const uint64_t*>(of.leaf_at) + step, __ATOMIC_ACQUIRE);
  if (((entry ^ of.leaf) & ~(kAddressMask | kDirty | kIgnored | kForSoftware)) != 0) return false;
  found.page = entry & kAddressMask;
  if ((entry & kDirty) == 0) found.rights &= static_cast<uint8_t>(~TlbEntry::kWrite);
  return true;
}

// `linear` to its 4 KiB page. False: `error` is the error code of the #PF.
bool Mmu::translate(uint64_t linear, TlbKind kind, Access access, Translation& out, uint32_t& error) {
  if ((cpu_.arch.cr0 & cr0::kPg) == 0) {
    out = {.page = page_of(linear) & 0xffffffff, .rights = TlbEntry::kRead | TlbEntry::kWrite | TlbEntry::kExecute};
    return true;
  }
  Outcome outcome = Outcome::kRetry;
  while (outcome == Outcome::kRetry) outcome = walk(linear, kind, access, out, error);
  if (outcome == Outcome::kDone) return true;
  if (access == Access::kWrite || access == Access::kReadWrite) error |= pf::kWrite;
  if (kind == TlbKind::kUser || kind == TlbKind::kUserAligned) error |= pf::kUser;
  // [SDM 4.7] I/D is reported only where execution can be forbidden.
  const bool fetch_reported = (cpu_.arch.cr4 & cr4::kSmep) != 0 || ((cpu_.arch.cr4 & cr4::kPae) != 0 && no_execute());
  if (access == Access::kFetch && fetch_reported) error |= pf::kFetch;
  return false;
}

// [SDM 4.4.1] In each present PDPTE, bits 2:1, 8:5 and those above MAXPHYADDR are reserved.
bool Mmu::load_pdptes(uint64_t cr3) {
  constexpr uint64_t kReserved = 0x1e6 | ~low_mask(kPhysicalBits);
  std::array<uint64_t, 4> entries{};
  for (unsigned i = 0; i < 4; ++i) {
    Step step;
    entries[i] = read_entry((cr3 & 0xffffffe0) + i * 8, 8, step);
    if ((entries[i] & kPresent) != 0 && (entries[i] & kReserved) != 0) return false;
  }
  cpu_.arch.pdpte = entries;
  return true;
}

}  // namespace kite::cpu
