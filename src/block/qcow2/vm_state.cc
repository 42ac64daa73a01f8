// A machine's state inside of an image: guest clusters behind the disk's last L2 table. [qcow2] "Snapshot": "The VM
// state [...] is stored at the virtual disk offset described by" the first L1 entry that the disk does not need.
#include <algorithm>
#include <cerrno>

#include "block/qcow2/access.h"
#include "block/qcow2/qcow2_node.h"

namespace kite::block::qcow2 {

uint64_t Qcow2Node::vm_state_offset() const { return header_.l1_entries_for(header_.size) * header_.bytes_an_l2(); }

Task<IoResult<>> Qcow2Node::read_vm_state(uint64_t offset, IoSlice to) {
  const uint64_t start = vm_state_offset();
  // What no L1 entry reaches was never written.
  const uint64_t end = std::max(l1_end(), start) - start;
  const uint64_t inside = offset >= end ? 0 : std::min(to.bytes(), end - offset);
  to.from(inside).fill(0);
  return inside == 0 ? ready(IoResult<>{}) : do_read(start + offset, to.slice(0, inside), {});
}

Task<IoResult<>> Qcow2Node::write_vm_state(uint64_t offset, IoSlice from, IoHow how) {
  if (read_only()) co_return io_fail(EACCES);
  if (corrupt_) co_return io_fail(EIO);
  constexpr uint64_t kMost = kMaxL1Bytes / 8;
  const uint64_t room = (kMost - header_.l1_entries_for(header_.size)) * header_.bytes_an_l2();
  if (offset > room || from.bytes() > room - offset) co_return io_fail(EFBIG);
  const uint64_t place = vm_state_offset() + offset;
  KITE_CO_TRY(co_await reach(place + from.bytes()));
  const SharedAccess access = co_await SharedAccess::enter(*this);
  KITE_CO_TRY(co_await write_extents(place, from, how.without(IoHow::kFua)));
  if (how.has(IoHow::kFua)) co_return co_await write_back(true);
  co_return IoResult<>{};
}

// Makes the L1 table long enough for guest offsets below `end`.
Task<IoResult<>> Qcow2Node::reach(uint64_t end) {
  const uint64_t needed = header_.l1_entries_for(end);
  if (needed <= l1_.size()) co_return IoResult<>{};
  const ExclusiveAccess access = co_await ExclusiveAccess::enter(*this);
  if (needed <= l1_.size()) co_return IoResult<>{};
  KITE_CO_TRY(co_await write_back(true));
  std::vector<uint64_t> l1 = l1_;
  // State is written from its front on: some more room saves the next growth.
  l1.resize(std::min<uint64_t>(needed + needed / 2, kMaxL1Bytes / 8));
  co_return co_await switch_l1(std::move(l1), header_.size);
}

}  // namespace kite::block::qcow2
