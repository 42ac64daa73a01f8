#include "support/page_stock.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>

#include "support/huge_pages.h"
#include "support/low_memory.h"

namespace kite {
namespace {

using Page = std::unique_ptr<std::byte, FreeHugePages>;

TEST(PageStock, PagesAreWholeAndTheTakersOwn) {
  PageStock stock;
  std::vector<Page> pages;
  std::set<std::byte*> places;
  for (unsigned i = 0; i < 3 * PageStock::kAhead; ++i) {
    pages.emplace_back(stock.take());
    std::byte* const page = pages.back().get();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(page) % kHugePageSize, 0u);
    EXPECT_TRUE(places.insert(page).second);
    std::memset(page, static_cast<int>(i), kHugePageSize);
  }
  for (unsigned i = 0; i < pages.size(); ++i) {
    EXPECT_EQ(pages[i].get()[0], std::byte(i));
    EXPECT_EQ(pages[i].get()[kHugePageSize - 1], std::byte(i));
  }
}

// Whatever the host makes of the wish, what has been written stands, and can be written on.
TEST(PageStock, ACollapsedPageKeepsItsContents) {
  constexpr size_t kBytes = 2 * kHugePageSize;
  void* const mapped =
      ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  auto* const memory = static_cast<std::byte*>(mapped);
  std::byte* const page = memory + (-reinterpret_cast<uintptr_t>(memory) & (kHugePageSize - 1));
  {
    PageStock stock;
    for (size_t i = 0; i < kHugePageSize; i += 4096) page[i] = std::byte(i >> 12);
    stock.collapse(page, page);
    for (size_t i = 0; i < kHugePageSize; i += 4096) page[i + 1] = std::byte{1};
    stock.forget(memory, kBytes);
    for (size_t i = 0; i < kHugePageSize; i += 4096) {
      ASSERT_EQ(page[i], std::byte(i >> 12));
      ASSERT_EQ(page[i + 1], std::byte{1});
    }
    stock.collapse(page, page);
    stock.forget(memory, kBytes);
    EXPECT_EQ(::munmap(mapped, kBytes), 0);
  }
}

TEST(PageStock, LowMemoryIsForWhoAsksForThatMuch) {
  PageStock stock;
  EXPECT_EQ(stock.take_low(kHugePageSize), nullptr);
  stock.prepare_low(kHugePageSize);
  stock.prepare_low(3 * kHugePageSize);
  EXPECT_EQ(stock.take_low(2 * kHugePageSize), nullptr);
  // What has not been begun by now is taken off the list: either way it is asked for no more than once.
  for (const size_t bytes : {kHugePageSize, 3 * kHugePageSize}) {
    if (auto* const memory = static_cast<std::byte*>(stock.take_low(bytes)); memory != nullptr) {
      EXPECT_EQ(reinterpret_cast<uintptr_t>(memory) % kHugePageSize, 0u);
      memory[bytes - 1] = std::byte{1};
      EXPECT_EQ(memory[0], std::byte{0});
      free_low(memory, bytes);
    }
    EXPECT_EQ(stock.take_low(bytes), nullptr);
  }
}

}  // namespace
}  // namespace kite
