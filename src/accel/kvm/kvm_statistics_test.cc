#include "accel/kvm/kvm_statistics.h"

#include <gtest/gtest.h>

#include <cstring>

#include "accel/kvm/test_kvm.h"

namespace kite {
namespace {

using metrics::Kind;
using metrics::Unit;

// A statistics file: header, descriptions, data.
class StatisticsFile {
 public:
  static constexpr uint32_t kNameBytes = 48;

  void add(const char* name, uint32_t flags, int16_t exponent, std::vector<uint64_t> values) {
    kvm_stats_desc entry{};
    entry.flags = flags;
    entry.exponent = exponent;
    entry.size = static_cast<uint16_t>(values.size());
    entry.offset = static_cast<uint32_t>(data_.size());
    append(descriptions_, &entry, sizeof entry);
    char text[kNameBytes] = {};
    std::strncpy(text, name, sizeof text - 1);
    append(descriptions_, text, sizeof text);
    append(data_, values.data(), values.size() * sizeof(uint64_t));
    ++count_;
  }
  [[nodiscard]] std::vector<uint8_t> bytes() const {
    kvm_stats_header header{};
    header.name_size = kNameBytes;
    header.num_desc = count_;
    header.desc_offset = sizeof header;
    header.data_offset = static_cast<uint32_t>(sizeof header + descriptions_.size());
    std::vector<uint8_t> file;
    append(file, &header, sizeof header);
    append(file, descriptions_.data(), descriptions_.size());
    append(file, data_.data(), data_.size());
    return file;
  }

 private:
  static void append(std::vector<uint8_t>& to, const void* from, size_t count) {
    const auto* const first = static_cast<const uint8_t*>(from);
    to.insert(to.end(), first, first + count);
  }
  std::vector<uint8_t> descriptions_, data_;
  uint32_t count_ = 0;
};

class KvmStatisticsTest : public ::testing::Test {
 protected:
  KvmStatisticsTest() {
    const KvmFd device(kvm_, kvm_.open_device("/dev/kvm"));
    vm_ = KvmFd(kvm_, device.ioctl(KVM_CREATE_VM));
  }
  metrics::Registry registry_;
  TestKvm kvm_;
  KvmFd vm_;
};

TEST_F(KvmStatisticsTest, EveryStatisticIsReadWithItsMeaning) {
  StatisticsFile file;
  file.add("exits", KVM_STATS_TYPE_CUMULATIVE, 0, {7});
  file.add("halt_poll_success_ns", KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS, -9, {1000});
  file.add("halt_wait_hist", KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS, -9, {1, 2, 3});
  file.add("blocking", KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BOOLEAN, 0, {1});
  kvm_.statistics = file.bytes();
  const KvmStatistics statistics(vm_, metrics::Subject::of_vcpu(1), registry_);

  const auto samples = statistics.read();

  ASSERT_EQ(samples.size(), 4u);
  EXPECT_EQ(samples[0].description.name, "exits");
  EXPECT_EQ(samples[0].values, std::vector<uint64_t>{7});
  EXPECT_EQ(samples[1].description.unit, Unit::kSeconds);
  EXPECT_EQ(samples[1].description.exponent, -9);
  EXPECT_EQ(samples[2].description.kind, Kind::kLog2Histogram);
  EXPECT_EQ(samples[2].values, (std::vector<uint64_t>{1, 2, 3}));
  EXPECT_EQ(samples[3].description.unit, Unit::kBoolean);
}

TEST_F(KvmStatisticsTest, TheFileIsOpenedWhenItIsFirstRead) {
  kvm_.statistics = StatisticsFile().bytes();
  const size_t before = kvm_.open_descriptors();
  const KvmStatistics statistics(vm_, {}, registry_);
  EXPECT_EQ(kvm_.open_descriptors(), before);
  EXPECT_TRUE(statistics.read().empty());
  EXPECT_EQ(kvm_.open_descriptors(), before + 1);
}

TEST_F(KvmStatisticsTest, AKvmWithoutStatisticsHasNone) {
  kvm_.refused = {{KVM_GET_STATS_FD, ENOTTY}};
  EXPECT_TRUE(KvmStatistics(vm_, {}, registry_).read().empty());
}

TEST_F(KvmStatisticsTest, NonsenseIsLeftOut) {
  StatisticsFile file;
  file.add("exits", KVM_STATS_TYPE_CUMULATIVE, 0, {7});
  kvm_.statistics = file.bytes();
  kvm_.statistics.resize(sizeof(kvm_stats_header) + 10);
  EXPECT_TRUE(KvmStatistics(vm_, {}, registry_).read().empty());
  kvm_.statistics = file.bytes();
  kvm_.statistics[8] = 0xff;  // num_desc
  kvm_.statistics[9] = 0xff;
  EXPECT_TRUE(KvmStatistics(vm_, {}, registry_).read().empty());
  kvm_.statistics = file.bytes();
  kvm_.statistics.resize(kvm_.statistics.size() - 1);  // the data end early
  EXPECT_TRUE(KvmStatistics(vm_, {}, registry_).read().empty());
}

}  // namespace
}  // namespace kite
