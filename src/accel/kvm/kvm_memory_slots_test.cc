#include "accel/kvm/kvm_memory_slots.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "accel/kvm/kvm_abi.h"

namespace kite {
namespace {

// A VM that only remembers its slots and answers dirty logs.
class SlotKvm final : public KvmCalls {
 public:
  using KvmCalls::ioctl;
  int open_device(const std::string&) override { return 3; }
  int close_fd(int) override { return 0; }
  int ioctl(int, unsigned long request, uintptr_t argument) override {
    if (request == KVM_SET_USER_MEMORY_REGION) {
      const auto& region = *reinterpret_cast<const kvm_userspace_memory_region*>(argument);
      log.push_back(region.memory_size == 0 ? fmt::format("-{:x}", uint64_t{region.guest_phys_addr})
                                            : fmt::format("+{:x}-{:x}{}{}", uint64_t{region.guest_phys_addr},
                                                          uint64_t{region.guest_phys_addr + region.memory_size},
                                                          (region.flags & KVM_MEM_READONLY) != 0 ? " ro" : "",
                                                          (region.flags & KVM_MEM_LOG_DIRTY_PAGES) != 0 ? " log" : ""));
      return error;
    }
    if (request == KVM_GET_DIRTY_LOG) {
      auto& dirty = *reinterpret_cast<kvm_dirty_log*>(argument);
      std::memcpy(dirty.dirty_bitmap, &dirty_word, sizeof dirty_word);
      dirty_word = 0;
    }
    return 0;
  }
  void* map(int, size_t, int64_t, int&) override { return nullptr; }
  void unmap(void*, size_t) override {}
  int64_t read_at(int, void*, size_t, int64_t) override { return -EBADF; }
  std::vector<std::string> take() { return std::exchange(log, {}); }

  std::vector<std::string> log;
  uint64_t dirty_word = 0;
  int error = 0;
};

class KvmMemorySlotsTest : public ::testing::Test {
 protected:
  void TearDown() override { space_.remove_observer(*slots_); }
  void attach(KvmMemorySlots::Config config = {}) {
    slots_ = std::make_unique<KvmMemorySlots>(vm_, config);
    space_.add_observer(*slots_);
  }
  using Strings = std::vector<std::string>;

  SlotKvm kvm_;
  KvmFd vm_{kvm_, 3};
  AddressSpace space_{"memory", uint64_t{1} << 40};
  std::shared_ptr<RamBlock> block_ = *RamBlock::create("ram", 0x400000);
  std::shared_ptr<Region> ram_ = Region::ram("ram", block_);
  std::unique_ptr<KvmMemorySlots> slots_;
};

TEST_F(KvmMemorySlotsTest, SlotsFollowTheMapAndEndAtOneMebibyte) {
  attach();
  space_.root().add(0, ram_);
  space_.commit();
  EXPECT_EQ(kvm_.take(), (Strings{"+0-100000", "+100000-400000"}));
}

TEST_F(KvmMemorySlotsTest, WhatIsContiguousInGuestAndHostIsOneSlot) {
  attach();
  space_.root().add(0x200000, Region::alias("low", ram_, 0, 0x100000));
  space_.root().add(0x300000, Region::alias("next", ram_, 0x100000, 0x100000));
  space_.root().add(0x500000, Region::alias("elsewhere", ram_, 0x300000, 0x1000));
  space_.commit();
  EXPECT_EQ(kvm_.take(), (Strings{"+200000-400000", "+500000-501000"}));
}

TEST_F(KvmMemorySlotsTest, AChangeBelowOneMebibyteLeavesTheRestAlone) {
  attach();
  space_.root().add(0, ram_);
  space_.commit();
  kvm_.take();
  auto rom = Region::rom("rom", *RamBlock::create("rom", 0x10000));
  space_.root().add(0xf0000, rom, 1);
  space_.commit();
  EXPECT_EQ(kvm_.take(), (Strings{"-0", "+0-f0000", "+f0000-100000 ro"}));
}

TEST_F(KvmMemorySlotsTest, OnlyWholePagesGetASlot) {
  attach();
  space_.root().add(0x200000, Region::alias("odd", ram_, 0, 0x1800));
  space_.root().add(0x300800, Region::alias("shifted", ram_, 0, 0x2000));
  space_.commit();
  EXPECT_EQ(kvm_.take(), Strings{"+200000-201000"});
}

TEST_F(KvmMemorySlotsTest, ASlotThatIsRefusedIsReportedOnce) {
  attach();
  kvm_.error = -ENOMEM;
  space_.root().add(0x200000, ram_);
  space_.commit();
  const auto error = slots_->take_error();
  ASSERT_TRUE(error);
  EXPECT_NE(error->message.find("'ram' at 0x200000"), std::string::npos);
  EXPECT_FALSE(slots_->take_error());
  EXPECT_EQ(slots_->count(), 0u);
}

TEST_F(KvmMemorySlotsTest, WithoutAFreeSlotTheRestStaysTrapped) {
  attach({.slots = 1});
  space_.root().add(0, ram_);
  space_.commit();
  EXPECT_EQ(slots_->count(), 1u);
  EXPECT_TRUE(slots_->take_error());
}

TEST_F(KvmMemorySlotsTest, DirtyLoggingSwitchesTheSlotsOfItsBlock) {
  attach();
  space_.root().add(0x200000, ram_);
  space_.commit();
  kvm_.take();
  block_->set_dirty_logging(true);
  EXPECT_EQ(kvm_.take(), Strings{"+200000-600000 log"});
  block_->set_dirty_logging(false);
  EXPECT_EQ(kvm_.take(), Strings{"+200000-600000"});
}

TEST_F(KvmMemorySlotsTest, KvmsLogEndsUpInTheBlocks) {
  attach();
  space_.root().add(0x200000, ram_);
  space_.commit();
  block_->set_dirty_logging(true);
  kvm_.dirty_word = 1u << 5;
  EXPECT_EQ(block_->collect_dirty()[0], 1u << 5);
  EXPECT_EQ(block_->collect_dirty()[0], 0u);
}

TEST_F(KvmMemorySlotsTest, TheLogOfASlotThatGoesIsKept) {
  attach();
  space_.root().add(0x200000, ram_);
  space_.commit();
  block_->set_dirty_logging(true);
  kvm_.dirty_word = 1u << 3;
  auto keeper = block_;
  space_.root().remove(ram_);
  space_.commit();
  EXPECT_EQ(keeper->collect_dirty()[0], 1u << 3);
}

TEST_F(KvmMemorySlotsTest, EntriesOfRingsBeyondTheirSlotAreIgnored) {
  attach({.slots = 4, .rings = true});
  space_.root().add(0x200000, Region::alias("part", ram_, 0x1000, 0x2000));
  space_.commit();
  block_->set_dirty_logging(true);
  slots_->page_written(0, 1);
  slots_->page_written(0, 2);
  slots_->page_written(3, 0);
  EXPECT_EQ(block_->collect_dirty()[0], 1u << 2);  // page 1 of the slot is page 2 of the block
}

TEST_F(KvmMemorySlotsTest, EntriesOfRingsEndWithTheirLog) {
  attach({.rings = true});
  std::vector<uint64_t> ring;
  slots_->set_ring_reader([&] {
    for (const uint64_t page : std::exchange(ring, {})) slots_->page_written(0, page);
  });
  space_.root().add(0x200000, ram_);
  space_.commit();
  block_->set_dirty_logging(true);
  ring = {3};
  block_->set_dirty_logging(false);
  block_->set_dirty_logging(true);
  ring.push_back(5);
  EXPECT_EQ(block_->collect_dirty()[0], 1u << 5);
}

}  // namespace
}  // namespace kite
