// I/O commands of the NVMe controller, and FORMAT NVM. [NVMe 1.4] 6. They run on the drives' executor.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "devices/nvme/nvme_controller.h"
#include "support/bits.h"

namespace kite::devices {

using namespace nvme;
using block::IoHow;
using block::IoResult;
using block::IoSlice;

namespace {

constexpr uint16_t refuse(Status status) { return static_cast<uint16_t>(status | kDoNotRetry); }
constexpr uint64_t kScratch = uint64_t{1} << 20;  // bytes that VERIFY reads, FORMAT zeroes at once
constexpr uint64_t kFormatStep = uint64_t{1} << 30;

uint16_t status_of(const IoResult<>& result, Status otherwise) {
  if (result) return kSuccess;
  switch (result.error().code) {
    case ECANCELED: return kAbortRequested;
    case ENOSPC: return refuse(kCapacityExceeded);
    case EACCES:
    case EROFS: return refuse(kWriteProtected);
    default: return otherwise;
  }
}

IoHow how_of(const Command& command) { return {.flags = (command.cdw12 & kForceUnitAccess) != 0 ? IoHow::kFua : 0u}; }

}  // namespace

Task<uint16_t> NvmeController::perform(Command command) {
  // [NVMe 1.4] 6.2: fused operations are not offered.
  if ((command.flags & kFlagsFuse) != 0) co_return refuse(kInvalidField);
  if (command.opcode == kFlush && command.nsid == kAllNamespaces) co_return co_await flush_all();
  NvmeNamespace* const space = find_namespace(command.nsid);
  if (space == nullptr) co_return refuse(kInvalidNamespace);
  switch (command.opcode) {
    case kRead:
    case kWrite: co_return co_await transfer(*space, command);
    case kFlush: co_return status_of(co_await space->drive().flush(), kWriteFault);
    case kWriteZeroes: co_return co_await write_zeroes(*space, command);
    case kDatasetManagement: co_return co_await manage(*space, command);
    case kCompare: co_return co_await compare(*space, command);
    case kVerify: co_return co_await verify(*space, command);
    default: co_return refuse(kInvalidOpcode);
  }
}

std::expected<NvmeController::Extent, uint16_t> NvmeController::extent_of(const NvmeNamespace& space,
                                                                          const Command& command) const {
  const uint64_t first = command.cdw10 | uint64_t{command.cdw11} << 32;
  const uint64_t count = (command.cdw12 & 0xffff) + 1u, blocks = space.blocks();
  if ((command.cdw12 & kProtection) != 0) return std::unexpected(refuse(kInvalidField));  // no format has it
  if (first > blocks || count > blocks - first) return std::unexpected(refuse(kLbaOutOfRange));
  return Extent{.offset = first << space.block_shift(), .bytes = count << space.block_shift()};
}

std::expected<SgBuffer, uint16_t> NvmeController::pin(const Command& command, uint64_t bytes, DmaDirection direction) {
  auto data = read_data_pointer(*this, command, bytes, page_bytes_.load(std::memory_order_acquire), true,
                                direction == DmaDirection::kToGuest);
  if (!data) return std::unexpected(refuse(data.error()));
  for (SgEntry& entry : data->entries) entry.address = dma_address(entry.address);
  auto buffer = may_master() ? SgBuffer::pin(memory_, data->entries, direction) : Result<SgBuffer>(fail("no master"));
  if (!buffer) return std::unexpected(uint16_t{kDataTransferError});
  return std::move(*buffer);
}

Task<uint16_t> NvmeController::transfer(NvmeNamespace& space, Command command) {
  const auto extent = extent_of(space, command);
  if (!extent) co_return extent.error();
  if (extent->bytes > most_bytes()) co_return refuse(kInvalidField);  // [NVMe 1.4] figure 247, MDTS
  const bool reads = command.opcode == kRead;
  if (reads && command.flags >> kFlagsPsdt != 0) {
    auto data =
        read_data_pointer(*this, command, extent->bytes, page_bytes_.load(std::memory_order_acquire), true, true);
    if (!data) co_return refuse(data.error());
    if (!data->discarded.empty()) co_return co_await scattered_read(space, extent->offset, std::move(*data));
  }
  auto buffer = pin(command, extent->bytes, reads ? DmaDirection::kToGuest : DmaDirection::kFromGuest);
  if (!buffer) co_return buffer.error();
  if (!reads) {
    co_return status_of(co_await space.drive().write(extent->offset, buffer->slice(), how_of(command)), kWriteFault);
  }
  const IoResult<> result = co_await space.drive().read(extent->offset, buffer->slice());
  buffer->complete(result || result.error().code != ECANCELED ? extent->bytes : 0);
  co_return status_of(result, kUnrecoveredRead);
}

// A read of which parts go to bit buckets.
Task<uint16_t> NvmeController::scattered_read(NvmeNamespace& space, uint64_t offset, DataPointer data) {
  uint64_t bytes = 0;
  for (const SgEntry& entry : data.entries) bytes += entry.bytes;
  std::vector<uint8_t> content(bytes);
  const IoResult<> result = co_await space.drive().read(offset, IoSlice(std::span(content)));
  if (!result) co_return status_of(result, kUnrecoveredRead);
  std::span<const uint8_t> rest(content);
  for (size_t at = 0; at < data.entries.size(); ++at) {
    const SgEntry& entry = data.entries[at];
    if (!data.discarded[at] && !dma_write(entry.address, rest.first(entry.bytes))) co_return kDataTransferError;
    rest = rest.subspan(entry.bytes);
  }
  co_return kSuccess;
}

Task<uint16_t> NvmeController::compare(NvmeNamespace& space, Command command) {
  const auto extent = extent_of(space, command);
  if (!extent) co_return extent.error();
  if (extent->bytes > most_bytes()) co_return refuse(kInvalidField);
  auto buffer = pin(command, extent->bytes, DmaDirection::kFromGuest);
  if (!buffer) co_return buffer.error();
  std::vector<uint8_t> content(extent->bytes), expected(extent->bytes);
  const IoResult<> result = co_await space.drive().read(extent->offset, IoSlice(std::span(content)));
  if (!result) co_return status_of(result, kUnrecoveredRead);
  buffer->slice().copy_to(expected.data());
  co_return content == expected ? kSuccess : refuse(kCompareFailure);
}

Task<uint16_t> NvmeController::write_zeroes(NvmeNamespace& space, Command command) {
  const auto extent = extent_of(space, command);
  if (!extent) co_return extent.error();
  IoHow how = how_of(command);
  if ((command.cdw12 & kDeallocate) != 0) how = how.with(IoHow::kMayUnmap);
  co_return status_of(co_await space.drive().write_zeroes(extent->offset, extent->bytes, how), kWriteFault);
}

// [NVMe 1.4] 6.14: as a read without the data.
Task<uint16_t> NvmeController::verify(NvmeNamespace& space, Command command) {
  const auto extent = extent_of(space, command);
  if (!extent) co_return extent.error();
  std::vector<uint8_t> scratch(std::min(kScratch, extent->bytes));
  for (uint64_t done = 0; done < extent->bytes; done += scratch.size()) {
    const IoSlice part(scratch.data(), std::min<uint64_t>(scratch.size(), extent->bytes - done));
    const IoResult<> result = co_await space.drive().read(extent->offset + done, part);
    if (!result) co_return status_of(result, kUnrecoveredRead);
  }
  co_return kSuccess;
}

// [NVMe 1.4] 6.7: of the hints only the deallocation means something here.
Task<uint16_t> NvmeController::manage(NvmeNamespace& space, Command command) {
  const uint32_t count = (command.cdw10 & 0xff) + 1;
  std::vector<DsmRange> ranges(count);
  auto buffer = pin(command, count * sizeof(DsmRange), DmaDirection::kFromGuest);
  if (!buffer) co_return buffer.error();
  buffer->slice().copy_to(ranges.data());
  buffer->complete(0);
  const uint64_t blocks = space.blocks();
  for (const DsmRange& range : ranges)
    if (range.first > blocks || range.blocks > blocks - range.first) co_return refuse(kLbaOutOfRange);
  if ((command.cdw11 & kDsmDeallocate) == 0 || space.disk().discard_granularity == 0) co_return kSuccess;
  for (const DsmRange& range : ranges) {
    if (range.blocks == 0) continue;
    const uint64_t offset = range.first << space.block_shift(), bytes = uint64_t{range.blocks} << space.block_shift();
    const IoResult<> result = co_await space.drive().discard(offset, bytes);
    if (!result) co_return status_of(result, kWriteFault);
  }
  co_return kSuccess;
}

Task<uint16_t> NvmeController::flush_all() {
  uint16_t worst = kSuccess;
  for (NvmeNamespace* space : namespaces_) {
    if (space == nullptr) continue;
    const uint16_t status = status_of(co_await space->drive().flush(), kWriteFault);
    if (status != kSuccess) worst = status;
  }
  co_return worst;
}

// [NVMe 1.4] 5.23. What was there is gone: the namespace reads as zeroes.
Task<uint16_t> NvmeController::format(Command command) {
  constexpr uint32_t kNoErase = 0, kUserData = 1;
  const uint32_t format = command.cdw10 & 0xf, erase = command.cdw10 >> 9 & 7;
  if (format >= NvmeNamespace::kFormats) co_return refuse(kInvalidFormat);
  // Metadata and protection information are in no format.
  if ((command.cdw10 & 0x1f0) != 0 || (erase != kNoErase && erase != kUserData)) co_return refuse(kInvalidField);
  const bool all = command.nsid == kAllNamespaces;
  if (!all && find_namespace(command.nsid) == nullptr) co_return refuse(kInvalidNamespace);
  for (NvmeNamespace* space : namespaces_) {
    if (space == nullptr || (!all && space->nsid() != command.nsid)) continue;
    const uint64_t length = space->drive().length();
    for (uint64_t offset = 0; offset < length; offset += kFormatStep) {
      const uint64_t bytes = std::min(kFormatStep, length - offset);
      const IoResult<> result = co_await space->drive().write_zeroes(offset, bytes, {.flags = IoHow::kMayUnmap});
      if (!result) co_return status_of(result, kWriteFault);
    }
    space->set_format(format);
  }
  co_return kSuccess;
}

}  // namespace kite::devices
