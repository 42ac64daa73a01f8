// The soft MMU: TLB fills and the slow paths of memory accesses. Page walks are in page_walk.cc.
#include "cpu/mmu.h"

#include <algorithm>
#include <bit>

#include "cpu/events.h"
#include "memory/epoch.h"
#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::cpu {

namespace {

using Target = TlbEntry::Target;
using x86::Seg;
using x86::Vector;

constexpr uint64_t kOffsetMask = kPageSize - 1;

uint8_t right_of(Access access) {
  switch (access) {
    case Access::kRead: return TlbEntry::kRead;
    case Access::kFetch: return TlbEntry::kExecute;
    case Access::kWrite:
    case Access::kReadWrite: break;
  }
  return TlbEntry::kWrite;
}

template <class T>
struct Packed {
  typedef T type __attribute__((aligned(1), may_alias));
};

// One host access for the sizes that the architecture makes atomic, so that other vCPUs see no halves.
template <class T>
uint64_t load_once(const uint8_t* from) {
  return *reinterpret_cast<const volatile typename Packed<T>::type*>(from);
}
template <class T>
void store_once(uint8_t* to, uint64_t value) {
  *reinterpret_cast<volatile typename Packed<T>::type*>(to) = static_cast<T>(value);
}

uint64_t load_host(const uint8_t* from, unsigned bytes) {
  switch (bytes) {
    case 1: return *from;
    case 2: return load_once<uint16_t>(from);
    case 4: return load_once<uint32_t>(from);
    case 8: return load_once<uint64_t>(from);
    default: return load_le(from, bytes);
  }
}

void store_host(uint8_t* to, unsigned bytes, uint64_t value) {
  switch (bytes) {
    case 1: return store_once<uint8_t>(to, value);
    case 2: return store_once<uint16_t>(to, value);
    case 4: return store_once<uint32_t>(to, value);
    case 8: return store_once<uint64_t>(to, value);
    default: return store_le(to, bytes, value);
  }
}

// The size of the next access of a device access that is split: a power of two, aligned, at most 8.
unsigned device_chunk(Gpa address, unsigned bytes) {
  const unsigned aligned = 1u << std::min(3, std::countr_zero(address | 8));
  return std::min(aligned, std::bit_floor(bytes));
}

PhysicalRange physical_range(const FlatRange& flat) {
  return {.start = flat.start,
          .end = flat.end,
          .host = flat.host(flat.start),
          .block = flat.region->block().get(),
          .block_offset = flat.block_offset(flat.start),
          .writable = !flat.read_only && flat.kind != RegionKind::kRom,
          .traps_writes = flat.read_only && flat.region->handler() != nullptr};
}

}  // namespace

// --- kinds of access

TlbKind Mmu::current_kind() const { return static_cast<TlbKind>(cpu_.tlb_ - cpu_.tlbs_.data()); }

TlbKind Mmu::system_kind() const {
  return (cpu_.arch.cr4 & x86::cr4::kSmap) != 0 ? TlbKind::kSupervisor : TlbKind::kSupervisorUserOk;
}

TlbKind Mmu::kind_for(uint8_t cpl) const {
  if (cpl == 3) return TlbKind::kUser;
  return (cpu_.state.rflags & x86::flag::kAc) != 0 ? TlbKind::kSupervisorUserOk : system_kind();
}

// --- fills

void Mmu::count_miss(Access access) {
  Counters& counters = cpu_.counters;
  (access == Access::kRead    ? counters.read_misses
   : access == Access::kFetch ? counters.fetch_misses
                              : counters.write_misses)
      .add();
}

TlbEntry* Mmu::lookup(uint64_t linear, TlbKind kind, Access access, Fault& fault) {
  TlbTable& table = cpu_.tlbs_[static_cast<size_t>(kind)];
  TlbEntry& entry = table.at(linear);
  if (entry.linear == page_of(linear) && (entry.rights & right_of(access)) != 0) return &entry;
  count_miss(access);
  fault.linear = access == Access::kFetch ? linear : untagged(linear);
  if (cpu_.long_mode() && !canonical(fault.linear)) {
    fault.canonical = false;
    return nullptr;
  }
  Translation translation;
  if (!translate(fault.linear, kind, access, translation, fault.error_code)) return nullptr;
  // An address with metadata has an entry of its own, for data only.
  if (fault.linear != linear) translation.rights &= static_cast<uint8_t>(~TlbEntry::kExecute);
  fill(table, kind, linear, translation);
  if (fault.linear == linear && cpu_.long_mode()) fill_neighbours(table, kind, linear, translation);
  return &entry;
}

TlbEntry* Mmu::entry(uint64_t linear, TlbKind kind, Access access, Seg segment) {
  Fault fault;
  if (TlbEntry* found = lookup(linear, kind, access, fault)) return found;
  if (!fault.canonical) {
    cpu_.raise(segment == Seg::kSs ? Vector::kSs : Vector::kGp, 0);
    return nullptr;
  }
  log::print(log::Category::kMmu, "page fault at {:#x}, error code {:#x}, rip {:#x}", fault.linear, fault.error_code,
             cpu_.state.rip);
  cpu_.arch.cr2 = fault.linear;
  cpu_.raise(Vector::kPf, fault.error_code);
  return nullptr;
}

void Mmu::fill(TlbTable& table, TlbKind kind, uint64_t linear, const Translation& translation) {
  const uint64_t page = page_of(linear);
  const size_t number = TlbTable::index(linear);
  TlbEntry& entry = table.entries[number];
  TlbAccess& data = table.accesses[number];
  uintptr_t host = 0;
  data.page_state = nullptr;
  entry.target = classify(translation.page, host, data.page_state);
  entry.linear = page;
  entry.page = translation.page;
  data.addend = host - page;
  entry.rights = translation.rights;
  entry.shift = translation.shift;
  entry.global = translation.global;
  table.exec_ids[number] = 0;
  entry.whole = entry.target == Target::kMemory && is_whole(translation);

  const bool memory = entry.target == Target::kMemory || entry.target == Target::kRom;
  const bool fast =
      memory && kind != TlbKind::kUserAligned && !data_breakpoint_in_page(cpu_, page_of(untagged(linear)));
  const auto tag = [&](bool allowed, uint8_t right) {
    return allowed && (translation.rights & right) != 0 ? page : kNoTag;
  };
  data.read_tag = tag(fast, TlbEntry::kRead);
  data.write_tag = tag(fast && entry.target == Target::kMemory, TlbEntry::kWrite);
  entry.exec_tag = tag(memory, TlbEntry::kExecute);
  table.note_filled(linear);
}

// What is used next is often near. A processor may remember any page whose accessed bit is set (SDM 3A 4.10.2.3).
void Mmu::fill_neighbours(TlbTable& table, TlbKind kind, uint64_t linear, const Translation& translation) {
  constexpr unsigned kGroup = 16;  // their entries are in two lines of the host's cache
  const uint64_t page = page_of(linear);
  const auto place = static_cast<int>((linear >> kPageShift) & (kGroup - 1));
  Translation found;
  for (int step = -place; step < static_cast<int>(kGroup) - place; ++step) {
    const uint64_t other = page + static_cast<uint64_t>(step) * kPageSize;
    if (table.at(other).linear == kNoTag && neighbour(translation, step, found)) fill(table, kind, other, found);
  }
}

// Whether nothing but memory lies behind the large page that the entry is a part of.
bool Mmu::is_whole(const Translation& translation) {
  if (translation.shift == kPageShift || ((cpu_.arch.dr7 & 0xff) | cpu_.debug.data_armed) != 0) return false;
  const uint64_t bytes = uint64_t{1} << translation.shift;
  const Gpa start = translation.page & ~(bytes - 1);
  const PhysicalRange* range = range_at(translation.page, kPageSize);
  if (range == nullptr || start < range->start || bytes > range->end - start) return false;
  return cpu_.config.apic == nullptr || ((cpu_.config.apic->base() ^ start) & low_mask(kPhysicalBits)) >= bytes;
}

// What lies behind the guest-physical page; `host` and `page_state` are set when that is memory throughout.
Target Mmu::classify(Gpa page, uintptr_t& host, std::atomic<uint8_t>*& page_state) {
  if (is_apic_page(page)) return Target::kApic;
  if (const PhysicalRange* range = range_at(page, kPageSize)) {
    host = reinterpret_cast<uintptr_t>(range->host + (page - range->start));
    page_state = range->block->page_state(range->block_offset + (page - range->start));
    return range->writable ? Target::kMemory : Target::kRom;
  }
  const EpochGuard guard;
  const FlatView& view = cpu_.memory().view(guard);
  for (uint64_t at = page; at - page < kPageSize;) {
    const FlatRange* range = view.find(at);
    if (range != nullptr && range->is_memory()) return Target::kMixed;
    const uint64_t run = view.run_length(at);
    if (run >= kPageSize) break;
    at += run;
  }
  return Target::kDevice;
}

const PhysicalRange* Mmu::range_at(Gpa address, unsigned bytes) {
  auto& ranges = cpu_.ranges_;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (address < ranges[i].start || address >= ranges[i].end) continue;
    if (bytes > ranges[i].end - address) return nullptr;
    if (i != 0) std::swap(ranges[0], ranges[i]);
    return ranges.data();
  }
  const EpochGuard guard;
  const FlatRange* found = cpu_.memory().view(guard).find(address);
  if (found == nullptr || !found->is_memory()) return nullptr;
  std::shift_right(ranges.begin(), ranges.end(), 1);
  ranges[0] = physical_range(*found);
  return bytes > found->end - address ? nullptr : ranges.data();
}

// --- guest-physical accesses

bool Mmu::is_apic_page(Gpa page) const {
  constexpr uint64_t kEnabled = 1u << 11, kX2Apic = 1u << 10;
  if (cpu_.config.apic == nullptr) return false;
  const uint64_t base = cpu_.config.apic->base();
  return (base & (kEnabled | kX2Apic)) == kEnabled && (base & low_mask(kPhysicalBits) & ~kOffsetMask) == page;
}

// The registers are 32 bits wide at multiples of 16 (SDM 3A 11.4.1); reads of a part of one see that part.
uint64_t Mmu::apic_read(Gpa address, unsigned bytes) {
  const auto offset = static_cast<uint32_t>(address & kOffsetMask);
  if ((offset & 15) + bytes > 4) return 0;
  return (cpu_.config.apic->mmio_read(offset & ~3u) >> (offset & 3) * 8) & low_mask(bytes * 8);
}

void Mmu::apic_write(Gpa address, unsigned bytes, uint64_t value) {
  const auto offset = static_cast<uint32_t>(address & kOffsetMask);
  if ((offset & 15) == 0 && bytes == 4) cpu_.config.apic->mmio_write(offset, static_cast<uint32_t>(value));
}

void Mmu::write_device(Gpa address, const void* from, unsigned bytes) {
  if (cpu_.io == nullptr) return;
  for (unsigned done = 0; done < bytes;) {
    const unsigned chunk = device_chunk(address + done, bytes - done);
    cpu_.write_device(address + done, chunk, load_le(static_cast<const uint8_t*>(from) + done, chunk));
    done += chunk;
  }
}

void Mmu::store_to_range(const PhysicalRange& range, Gpa address, const void* from, unsigned bytes) {
  if (range.traps_writes) return write_device(address, from, bytes);
  if (!range.writable) return;
  uint8_t* to = range.host + (address - range.start);
  if (bytes <= 8)
    store_host(to, bytes, load_le(from, bytes));
  else
    std::memcpy(to, from, bytes);
  const uint64_t offset = range.block_offset + (address - range.start);
  if (range.block->page_state(offset)->load(std::memory_order_relaxed) == 0) return;
  range.block->note_write(offset, bytes);
  cpu_.code_written(address, bytes);
}

uint64_t Mmu::physical_read(Gpa address, unsigned bytes) {
  if (is_apic_page(page_of(address))) return apic_read(address, bytes);
  if (const PhysicalRange* range = range_at(address, bytes))
    return load_host(range->host + (address - range->start), bytes);
  if (cpu_.io == nullptr) return low_mask(bytes * 8);
  uint64_t value = 0;
  for (unsigned done = 0; done < bytes;) {
    const unsigned chunk = bytes == std::bit_floor(bytes) ? bytes : device_chunk(address + done, bytes - done);
    value |= (cpu_.read_device(address + done, chunk) & low_mask(chunk * 8)) << done * 8;
    done += chunk;
  }
  return value;
}

void Mmu::physical_write(Gpa address, unsigned bytes, uint64_t value) {
  if (is_apic_page(page_of(address))) return apic_write(address, bytes, value);
  if (const PhysicalRange* range = range_at(address, bytes)) return store_to_range(*range, address, &value, bytes);
  if (cpu_.io == nullptr) return;
  for (unsigned done = 0; done < bytes;) {
    const unsigned chunk = bytes == std::bit_floor(bytes) ? bytes : device_chunk(address + done, bytes - done);
    cpu_.write_device(address + done, chunk, (value >> done * 8) & low_mask(chunk * 8));
    done += chunk;
  }
}

// --- linear accesses

// Linear addresses are 32 bits wide outside of IA-32e mode.
uint64_t Mmu::wrap(uint64_t linear) const { return cpu_.long_mode() ? linear : static_cast<uint32_t>(linear); }

bool Mmu::span(TlbKind kind, uint64_t linear, unsigned bytes, Access access, Seg segment, Span& out) {
  const auto first_bytes = static_cast<unsigned>(std::min<uint64_t>(bytes, kPageSize - (linear & kOffsetMask)));
  const TlbEntry* first = entry(linear, kind, access, segment);
  if (first == nullptr) return false;
  out.address[0] = first->page | (linear & kOffsetMask);
  out.bytes[0] = first_bytes;
  if (first_bytes == bytes) return true;
  // Linear addresses of other than 64-bit code are 32 bits wide.
  constexpr uint64_t kFourGib = uint64_t{1} << 32;
  const uint64_t next = page_of(linear) + kPageSize;
  const TlbEntry* second = entry(next == kFourGib && !cpu_.code64 ? 0 : next, kind, access, segment);
  if (second == nullptr) return false;
  out.address[1] = second->page;
  out.bytes[1] = bytes - first_bytes;
  return true;
}

uint64_t Mmu::load_through(TlbKind kind, const TlbEntry& entry, uint64_t linear, unsigned bytes) {
  if (entry.target == Target::kMemory || entry.target == Target::kRom)
    return load_host(reinterpret_cast<const uint8_t*>(linear + cpu_.tlb(kind).access_at(linear).addend), bytes);
  return physical_read(entry.page | (linear & kOffsetMask), bytes);
}

void Mmu::store_through(TlbKind kind, const TlbEntry& entry, uint64_t linear, unsigned bytes, uint64_t value) {
  const Gpa address = entry.page | (linear & kOffsetMask);
  if (entry.target != Target::kMemory) return physical_write(address, bytes, value);
  const TlbAccess& data = cpu_.tlb(kind).access_at(linear);
  store_host(reinterpret_cast<uint8_t*>(linear + data.addend), bytes, value);
  if (data.page_state->load(std::memory_order_relaxed) == 0) return;
  const PhysicalRange* range = range_at(address, bytes);
  range->block->note_write(range->block_offset + (address - range->start), bytes);
  cpu_.code_written(address, bytes);
}

bool Mmu::read_value(TlbKind kind, uint64_t linear, unsigned bytes, uint64_t& out, Seg segment, Access access) {
  if ((linear & kOffsetMask) + bytes <= kPageSize) {
    const TlbEntry* found = entry(linear, kind, access, segment);
    if (found == nullptr) return false;
    out = load_through(kind, *found, linear, bytes);
    return true;
  }
  Span pages;
  if (!span(kind, linear, bytes, access, segment, pages)) return false;
  const uint64_t low = physical_read(pages.address[0], pages.bytes[0]);
  out = low | physical_read(pages.address[1], pages.bytes[1]) << pages.bytes[0] * 8;
  return true;
}

bool Mmu::write_value(TlbKind kind, uint64_t linear, unsigned bytes, uint64_t value, Seg segment) {
  if ((linear & kOffsetMask) + bytes <= kPageSize) {
    const TlbEntry* found = entry(linear, kind, Access::kWrite, segment);
    if (found == nullptr) return false;
    store_through(kind, *found, linear, bytes, value);
    return true;
  }
  Span pages;
  if (!span(kind, linear, bytes, Access::kWrite, segment, pages)) return false;
  physical_write(pages.address[0], pages.bytes[0], value & low_mask(pages.bytes[0] * 8));
  physical_write(pages.address[1], pages.bytes[1], value >> pages.bytes[0] * 8);
  return true;
}

bool Mmu::read(TlbKind kind, uint64_t linear, void* to, unsigned bytes, Seg segment) {
  Span pages;
  if (!span(kind, linear, bytes, Access::kRead, segment, pages)) return false;
  auto* out = static_cast<uint8_t*>(to);
  for (unsigned piece = 0; piece < 2 && pages.bytes[piece] != 0; ++piece) {
    const Gpa address = pages.address[piece];
    const unsigned length = pages.bytes[piece];
    const bool apic = is_apic_page(page_of(address));
    if (const PhysicalRange* range = apic ? nullptr : range_at(address, length)) {
      std::memcpy(out, range->host + (address - range->start), length);
    } else {
      for (unsigned done = 0; done < length;) {
        const unsigned chunk = device_chunk(address + done, length - done);
        store_le(out + done, chunk, physical_read(address + done, chunk));
        done += chunk;
      }
    }
    out += length;
  }
  return true;
}

bool Mmu::write(TlbKind kind, uint64_t linear, const void* from, unsigned bytes, Seg segment) {
  Span pages;
  if (!span(kind, linear, bytes, Access::kWrite, segment, pages)) return false;
  const auto* in = static_cast<const uint8_t*>(from);
  for (unsigned piece = 0; piece < 2 && pages.bytes[piece] != 0; ++piece) {
    const Gpa address = pages.address[piece];
    const unsigned length = pages.bytes[piece];
    const bool apic = is_apic_page(page_of(address));
    if (const PhysicalRange* range = apic ? nullptr : range_at(address, length)) {
      store_to_range(*range, address, in, length);
    } else {
      for (unsigned done = 0; done < length;) {
        const unsigned chunk = device_chunk(address + done, length - done);
        physical_write(address + done, chunk, load_le(in + done, chunk));
        done += chunk;
      }
    }
    in += length;
  }
  return true;
}

bool Mmu::probe(TlbKind kind, uint64_t linear, unsigned bytes, Access access, Seg segment) {
  Span pages;
  return span(kind, linear, bytes, access, segment, pages);
}

bool Mmu::system_update(uint64_t linear, uint8_t set, uint8_t clear, uint8_t& before) {
  linear = wrap(linear);
  const TlbKind kind = system_kind();
  const TlbEntry* found = entry(linear, kind, Access::kReadWrite, Seg::kDs);
  if (found == nullptr) return false;
  if (found->target != Target::kMemory) {
    before = static_cast<uint8_t>(load_through(kind, *found, linear, 1));
    physical_write(found->page | (linear & kOffsetMask), 1, static_cast<uint8_t>((before & ~clear) | set));
    return true;
  }
  const TlbAccess& data = cpu_.tlb(kind).access_at(linear);
  auto* byte = reinterpret_cast<uint8_t*>(linear + data.addend);
  before = __atomic_load_n(byte, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(byte, &before, static_cast<uint8_t>((before & ~clear) | set), false,
                                      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
  }
  if (data.page_state->load(std::memory_order_relaxed) == 0) return true;
  const Gpa address = found->page | (linear & kOffsetMask);
  const PhysicalRange* range = range_at(address, 1);
  range->block->note_write(range->block_offset + (address - range->start), 1);
  cpu_.code_written(address, 1);
  return true;
}

// --- Cpu: the slow paths of the program's own accesses

// [SDM 3A 6.15, #AC] Only at CPL 3 with CR0.AM and RFLAGS.AC, which select a table of their own. It comes before a page
// fault and after a non-canonical address, as on hosts.
bool Cpu::check_alignment(uint64_t address, unsigned bytes) {
  Mmu mmu(*this);
  if (mmu.current_kind() != TlbKind::kUserAligned || (address & (bytes - 1)) == 0 || !std::has_single_bit(bytes))
    return true;
  if (long_mode() && !mmu.canonical(mmu.untagged(address))) return true;
  return raise(Vector::kAc, 0);
}

bool Cpu::read_slow(uint64_t address, unsigned bytes, uint64_t& out, Seg segment) {
  Mmu mmu(*this);
  const TlbKind kind = mmu.current_kind();
  if (kind == TlbKind::kUserAligned && !check_alignment(address, bytes)) return false;
  if (!mmu.read_value(kind, address, bytes, out, segment)) return false;
  if (debug.data_armed != 0) note_data_access(*this, address, bytes, false);
  return true;
}

bool Cpu::write_slow(uint64_t address, unsigned bytes, uint64_t value, Seg segment) {
  Mmu mmu(*this);
  const TlbKind kind = mmu.current_kind();
  if (kind == TlbKind::kUserAligned && !check_alignment(address, bytes)) return false;
  if (!mmu.write_value(kind, address, bytes, value, segment)) return false;
  if (debug.data_armed != 0) note_data_access(*this, address, bytes, true);
  return true;
}

bool Cpu::read_for_write(uint64_t address, unsigned bytes, uint64_t& out, Seg segment) {
  Mmu mmu(*this);
  const TlbKind kind = mmu.current_kind();
  if (kind == TlbKind::kUserAligned && !check_alignment(address, bytes)) return false;
  if (!mmu.read_value(kind, address, bytes, out, segment, Access::kReadWrite)) return false;
  if (debug.data_armed != 0) note_data_access(*this, address, bytes, false);
  return true;
}

void* Cpu::rmw_slow(uint64_t address, unsigned bytes, Seg segment) {
  Mmu mmu(*this);
  if (!check_alignment(address, bytes) || (address & kOffsetMask) + bytes > kPageSize) return nullptr;
  const TlbEntry* found = mmu.entry(address, mmu.current_kind(), Access::kReadWrite, segment);
  if (found == nullptr || found->target != Target::kMemory) return nullptr;
  if (debug.data_armed != 0) {
    note_data_access(*this, address, bytes, false);
    note_data_access(*this, address, bytes, true);
  }
  return reinterpret_cast<void*>(address + tlb_->access_at(address).addend);
}

bool Cpu::read_bytes(uint64_t address, void* to, unsigned bytes, Seg segment) {
  Mmu mmu(*this);
  if (!mmu.read(mmu.current_kind(), address, to, bytes, segment)) return false;
  if (debug.data_armed != 0) note_data_access(*this, address, bytes, false);
  return true;
}

bool Cpu::write_bytes(uint64_t address, const void* from, unsigned bytes, Seg segment) {
  Mmu mmu(*this);
  if (!mmu.write(mmu.current_kind(), address, from, bytes, segment)) return false;
  if (debug.data_armed != 0) note_data_access(*this, address, bytes, true);
  return true;
}

bool Cpu::probe(uint64_t address, unsigned bytes, Access access, Seg segment) {
  Mmu mmu(*this);
  return mmu.probe(mmu.current_kind(), address, bytes, access, segment);
}

bool Cpu::system_read(uint64_t address, unsigned bytes, uint64_t& out) {
  Mmu mmu(*this);
  if (!long_mode()) address = static_cast<uint32_t>(address);
  return mmu.read_value(mmu.system_kind(), address, bytes, out, Seg::kDs);
}

bool Cpu::system_write(uint64_t address, unsigned bytes, uint64_t value) {
  Mmu mmu(*this);
  if (!long_mode()) address = static_cast<uint32_t>(address);
  return mmu.write_value(mmu.system_kind(), address, bytes, value, Seg::kDs);
}

uint8_t* Cpu::direct(uint64_t address, Access access, unsigned& bytes_left, bool fault) {
  Mmu mmu(*this);
  const TlbKind kind = mmu.current_kind();
  Mmu::Fault ignored;
  const TlbEntry* found =
      fault ? mmu.entry(address, kind, access, Seg::kDs) : mmu.lookup(address, kind, access, ignored);
  if (found == nullptr) return nullptr;
  const TlbAccess& data = tlb(kind).access_at(address);
  const uint64_t tag = access == Access::kRead    ? data.read_tag
                       : access == Access::kFetch ? found->exec_tag
                                                  : data.write_tag;
  if (tag != page_of(address)) return nullptr;
  bytes_left = static_cast<unsigned>(kPageSize - (address & kOffsetMask));
  return reinterpret_cast<uint8_t*>(address + data.addend);
}

void Cpu::direct_written(uint64_t address, unsigned bytes) {
  if (tlb_->access_at(address).page_state->load(std::memory_order_relaxed) != 0) store_noticed(address, bytes);
}

// The memory that the host has at `host`.
std::optional<PhysicalRange> Cpu::range_with(const uint8_t* host) {
  const auto holds = [host](const PhysicalRange& range) {
    return host >= range.host && static_cast<uint64_t>(host - range.host) < range.end - range.start;
  };
  if (const auto* known = std::ranges::find_if(ranges_, holds); known != ranges_.end()) return *known;
  const EpochGuard guard;
  for (const FlatRange& flat : memory().view(guard).ranges()) {
    if (!flat.is_memory()) continue;
    const PhysicalRange range = physical_range(flat);
    if (holds(range)) return range;
  }
  return std::nullopt;
}

void Cpu::store_noticed_at(const uint8_t* host, unsigned bytes) {
  const auto range = range_with(host);
  if (!range) return;
  const auto offset = static_cast<uint64_t>(host - range->host);
  range->block->note_write(range->block_offset + offset, bytes);
  code_written(range->start + offset, bytes);
}

void Cpu::maybe_stored_at(const uint8_t* host, uint64_t bytes) {
  const auto range = range_with(host);
  if (!range) return;
  const auto offset = static_cast<uint64_t>(host - range->host);
  range->block->note_dirty(range->block_offset + offset, std::min(bytes, range->end - range->start - offset));
}

void Cpu::store_noticed(uint64_t address, unsigned bytes) {
  const Gpa physical = tlb_->at(address).page | (address & kOffsetMask);
  const PhysicalRange* range = Mmu(*this).range_at(physical, bytes);
  if (range == nullptr) return;
  range->block->note_write(range->block_offset + (physical - range->start), bytes);
  code_written(physical, bytes);
}

const uint8_t* Cpu::fetch_pointer(uint64_t linear, Gpa& physical, std::atomic<uint32_t>** generation, uint32_t* seen,
                                  uint64_t* bytes) {
  Mmu mmu(*this);
  const TlbEntry* found = mmu.entry(linear, mmu.current_kind(), Access::kFetch, Seg::kCs);
  if (found == nullptr) return nullptr;
  physical = found->page | (linear & kOffsetMask);
  if (found->exec_tag != page_of(linear)) return nullptr;
  const PhysicalRange* range = mmu.range_at(physical, 1);
  if (range == nullptr) return nullptr;
  const uint64_t offset = range->block_offset + (physical - range->start);
  const uint64_t on_page = kPageSize - (linear & kOffsetMask);
  const uint64_t wanted = bytes != nullptr ? std::min(*bytes, on_page) : on_page;
  const uint32_t marked = range->block->mark_code(offset, wanted);
  if (seen != nullptr) *seen = marked;
  if (bytes != nullptr) *bytes = range->block->marks_lines(offset) ? wanted : on_page;
  *generation = range->block->code_generation(offset);
  return range->host + (physical - range->start);
}

void Cpu::flush_tlb(bool keep_global) {
  (keep_global ? counters.local_flushes : counters.flushes).add();
  for (TlbTable& table : tlbs_) table.flush(keep_global);
  translation.drop_ranges(keep_global);
  if (!keep_global) {
    ranges_ = {};
    user_keys_met_ = supervisor_keys_met_ = 0;
  }
  ++translation_epoch;
}

void Cpu::set_pkru(uint32_t value) {
  keys_changed(arch.pkru ^ value, user_keys_met_);
  arch.pkru = value;
}

void Cpu::set_pkrs(uint32_t value) {
  keys_changed(arch.pkrs ^ value, supervisor_keys_met_);
  arch.pkrs = value;
}

// Instruction fetches know no keys: decoded code stays.
void Cpu::keys_changed(uint32_t bits, uint16_t met) {
  uint32_t of_met = 0;
  for (unsigned key = 0; key < 16; ++key)
    if (((met >> key) & 1) != 0) of_met |= 3u << key * 2;
  if ((bits & of_met) == 0) return;
  for (TlbTable& table : tlbs_) table.flush(false);
  translation.drop_ranges(false);
}

void Cpu::flush_page(uint64_t linear) {
  counters.page_flushes.add();
  for (TlbTable& table : tlbs_) table.flush_page(linear);
  translation.drop_ranges_at(linear);
  ++translation_epoch;
}

}  // namespace kite::cpu
