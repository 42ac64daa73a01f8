#include "block/jobs/copy.h"

#include <algorithm>

#include "block/chain.h"

namespace kite::block {

Task<CopyResult> copy_range(BlockNode& from, BlockNode& to, uint64_t offset, uint64_t bytes,
                            const AlignedBuffer& memory) {
  const auto failed = [](const IoError& error, bool reading) {
    return std::unexpected(CopyFailure{.code = error.code, .reading = reading});
  };
  while (bytes != 0) {
    const auto chain = co_await chain_status(from, offset, bytes);
    if (!chain) co_return failed(chain.error(), true);
    const uint64_t here = std::min(chain->bytes, bytes);
    if (chain->status.zero && !chain->status.data) {
      const auto there = co_await skip_filters(&to)->block_status(offset, here);
      const bool is_zero = there && there->zero && there->bytes >= here;
      if (!is_zero) {
        const auto put = co_await to.write_zeroes(offset, here, {.flags = IoHow::kMayUnmap | IoHow::kSilent});
        if (!put) co_return failed(put.error(), false);
      }
    } else {
      const IoSlice data(memory.data(), static_cast<size_t>(here));
      if (const auto got = co_await from.read(offset, data, {.flags = IoHow::kSilent}); !got)
        co_return failed(got.error(), true);
      if (const auto put = co_await to.write(offset, data, {.flags = IoHow::kSilent}); !put)
        co_return failed(put.error(), false);
    }
    offset += here;
    bytes -= here;
  }
  co_return CopyResult{};
}

}  // namespace kite::block
