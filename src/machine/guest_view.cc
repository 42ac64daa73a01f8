#include "machine/guest_view.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "support/bytes.h"

namespace kite::machine {

namespace {

constexpr uint64_t kPageBytes = 4096, kMostPhysical = uint64_t{1} << 52;

// The widest aligned access of a device that begins at `address` and is no longer than `bytes`.
unsigned device_access(Gpa address, size_t bytes) {
  unsigned size = 8;
  while (size > bytes || (address & (size - 1)) != 0) size /= 2;
  return size;
}

}  // namespace

AddressSpace& GuestView::memory_of(size_t vcpu) {
  x86::ArchState state;
  machine_.vcpu(vcpu).get_state(state);
  return machine_.memory_in_mode(state.smm);
}

std::optional<Gpa> GuestView::translate(size_t vcpu, uint64_t address) {
  const std::optional<Gpa> found = physical_ ? std::optional(address) : machine_.vcpu(vcpu).debug_translate(address);
  return found && *found < kMostPhysical ? found : std::nullopt;
}

// Memory goes through its block, so that ROM is written, and who watches the page learns of it.
bool GuestView::move(AddressSpace& memory, Gpa address, std::span<uint8_t> bytes, bool write) {
  while (!bytes.empty()) {
    size_t done = 0;
    {
      const EpochGuard guard;
      const FlatRange* const range = memory.view(guard).find(address);
      if (range == nullptr) return false;
      if (range->is_memory()) {
        done = std::min<size_t>(bytes.size(), range->end - address);
        uint8_t* const host = range->host(address);
        if (write)
          std::memcpy(host, bytes.data(), done);
        else
          std::memcpy(bytes.data(), host, done);
        if (write) range->region->block()->note_write(range->block_offset(address), done);
      }
    }
    if (done == 0) {
      done = device_access(address, bytes.size());
      uint64_t value = load_le(bytes.data(), done);
      const auto result = write ? memory.write(address, static_cast<unsigned>(done), value)
                                : memory.read(address, static_cast<unsigned>(done), value);
      if (result != AccessResult::kOk) return false;
      store_le(bytes.data(), done, value);
    }
    address += done;
    bytes = bytes.subspan(done);
  }
  return true;
}

// `move` gets the guest-physical address, the offset from `address` and a length inside of one page.
template <class Move>
size_t GuestView::for_pages(size_t vcpu, uint64_t address, size_t bytes, const Move& move) {
  size_t done = 0;
  while (done < bytes) {
    const uint64_t at = address + done;
    const size_t here = std::min<size_t>(bytes - done, kPageBytes - (at & (kPageBytes - 1)));
    const std::optional<Gpa> physical = translate(vcpu, at);
    if (!physical || !move(*physical, done, here)) break;
    done += here;
  }
  machine_.io().apply_map_changes();  // a device may have moved
  return done;
}

size_t GuestView::read(size_t vcpu, uint64_t address, std::span<uint8_t> to) {
  AddressSpace& memory = memory_of(vcpu);
  return for_pages(vcpu, address, to.size(), [&](Gpa physical, size_t offset, size_t here) {
    return move(memory, physical, to.subspan(offset, here), false);
  });
}

size_t GuestView::write(size_t vcpu, uint64_t address, std::span<const uint8_t> from) {
  AddressSpace& memory = memory_of(vcpu);
  std::vector<uint8_t> bytes(from.begin(), from.end());
  return for_pages(vcpu, address, from.size(), [&](Gpa physical, size_t offset, size_t here) {
    return move(memory, physical, std::span(bytes).subspan(offset, here), true);
  });
}

bool GuestView::read_physical(size_t vcpu, Gpa address, uint8_t& byte) {
  return move(memory_of(vcpu), address, {&byte, 1}, false);
}

bool GuestView::write_physical(size_t vcpu, Gpa address, uint8_t byte) {
  return move(memory_of(vcpu), address, {&byte, 1}, true);
}

}  // namespace kite::machine
