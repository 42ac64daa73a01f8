#include "metrics/metrics.h"

#include <gtest/gtest.h>

#include <thread>

namespace kite::metrics {
namespace {

std::vector<std::string> names_in(const Registry& registry) {
  std::vector<std::string> names;
  registry.for_each([&](const Source& source) {
    for (const Sample& sample : source.read()) names.push_back(sample.description.name);
  });
  return names;
}

TEST(Metrics, BucketsArePowersOfTwo) {
  EXPECT_EQ(Log2Histogram::bucket_of(0), 0u);
  EXPECT_EQ(Log2Histogram::bucket_of(1), 1u);
  EXPECT_EQ(Log2Histogram::bucket_of(2), 2u);
  EXPECT_EQ(Log2Histogram::bucket_of(3), 2u);
  EXPECT_EQ(Log2Histogram::bucket_of(4), 3u);
  EXPECT_EQ(Log2Histogram::bucket_of(~uint64_t{0}), Log2Histogram::kBuckets - 1);
}

TEST(Metrics, EmptyBucketsAtTheEndAreLeftOut) {
  Log2Histogram histogram;
  EXPECT_EQ(histogram.values(), std::vector<uint64_t>{0});
  histogram.record(3);
  histogram.record(2);
  EXPECT_EQ(histogram.values(), (std::vector<uint64_t>{0, 0, 2}));
}

TEST(Metrics, PeakKeepsTheLargest) {
  Peak peak;
  peak.see(7);
  peak.see(3);
  EXPECT_EQ(peak.value(), 7u);
}

TEST(Metrics, SharedCounterLosesNothing) {
  SharedCounter counter;
  const auto count = [&] {
    for (int at = 0; at < 10'000; ++at) counter.add();
  };
  std::thread other(count);
  count();
  other.join();
  EXPECT_EQ(counter.value(), 20'000u);
}

TEST(Metrics, GroupShowsWhatItsOwnerCounts) {
  Registry registry;
  Counter counter;
  Log2Histogram histogram;
  Group group("block.drive0", Subject::of_vcpu(3), registry);
  group.add("reads", counter, {.help = "read requests"});
  group.add("latency", histogram, {.help = "time of a request", .unit = Unit::kSeconds, .exponent = -9});
  group.add_gauge("depth", [] { return 5; }, {.help = "requests under way"});
  counter.add(2);
  histogram.record(1);

  const std::vector<Sample> samples = group.read();

  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[0].description.name, "block.drive0.reads");
  EXPECT_EQ(samples[0].description.kind, Kind::kCumulative);
  EXPECT_EQ(samples[0].values, std::vector<uint64_t>{2});
  EXPECT_EQ(samples[1].description.exponent, -9);
  EXPECT_EQ(samples[1].values, (std::vector<uint64_t>{0, 1}));
  EXPECT_EQ(samples[2].description.kind, Kind::kInstant);
  EXPECT_EQ(samples[2].values, std::vector<uint64_t>{5});
  EXPECT_EQ(group.subject(), Subject::of_vcpu(3));
}

TEST(Metrics, AGroupThatIsGoneIsNotRead) {
  Registry registry;
  Counter counter;
  Group stays("a", {}, registry);
  stays.add("x", counter, {.help = "x"});
  {
    Group goes("b", {}, registry);
    goes.add("y", counter, {.help = "y"});
    EXPECT_EQ(names_in(registry), (std::vector<std::string>{"a.x", "b.y"}));
  }
  EXPECT_EQ(names_in(registry), (std::vector<std::string>{"a.x"}));
}

}  // namespace
}  // namespace kite::metrics
