#include "monitor/stats_commands.h"

#include <gtest/gtest.h>

namespace kite::monitor {
namespace {

using metrics::Subject;

// Two vCPUs and a drive of Kite's, and a VM of KVM's.
class StatsCommandsTest : public ::testing::Test {
 protected:
  StatsCommandsTest() {
    drive_.add("reads", reads_, {.help = "read requests"});
    drive_.add("latency", latency_, {.help = "", .unit = metrics::Unit::kSeconds, .exponent = -9});
    for (metrics::Group* cpu : {&cpu0_, &cpu1_}) cpu->add("blocks", blocks_, {.help = "blocks executed"});
    registry_.add(kvm_);
    reads_.add(3);
    latency_.record(2);
    blocks_.add(9);
  }
  ~StatsCommandsTest() override { registry_.remove(kvm_); }

  class Kvm final : public metrics::Source {
   public:
    [[nodiscard]] std::string_view provider() const override { return "kvm"; }
    [[nodiscard]] Subject subject() const override { return {}; }
    [[nodiscard]] std::vector<metrics::Sample> read() const override {
      return {{.description = {.name = "pages_4k", .help = {}, .kind = metrics::Kind::kInstant}, .values = {12}}};
    }
  };
  Json stats(const char* arguments) {
    const auto reply = query_stats(registry_, Json::parse(arguments));
    return reply ? *reply : Json(reply.error().description);
  }

  metrics::Registry registry_;
  metrics::SharedCounter reads_;
  metrics::Counter blocks_;
  metrics::Log2Histogram latency_;
  Kvm kvm_;
  metrics::Group drive_{"block.drive0", {}, registry_};
  metrics::Group cpu0_{"jit", Subject::of_vcpu(0), registry_}, cpu1_{"jit", Subject::of_vcpu(1), registry_};
};

TEST_F(StatsCommandsTest, AVmHasASectionForEachProvider) {
  EXPECT_EQ(stats(R"({"target": "vm"})"), Json::parse(R"([
    {"provider": "kite", "stats": [{"name": "block.drive0.reads", "value": 3},
                                   {"name": "block.drive0.latency", "value": [0, 0, 1]}]},
    {"provider": "kvm", "stats": [{"name": "pages_4k", "value": 12}]}])"));
}

TEST_F(StatsCommandsTest, VcpusAreToldApartByPath) {
  EXPECT_EQ(stats(R"({"target": "vcpu", "vcpus": ["/machine/unattached/device[1]"]})"), Json::parse(R"([
    {"provider": "kite", "qom-path": "/machine/unattached/device[1]", "stats": [{"name": "jit.blocks", "value": 9}]}])"));
  EXPECT_EQ(stats(R"({"target": "vcpu"})").size(), 2u);
}

TEST_F(StatsCommandsTest, ProvidersAndNamesFilter) {
  EXPECT_EQ(stats(R"({"target": "vm", "providers": [{"provider": "kite", "names": ["block.drive0.reads"]}]})"),
            Json::parse(R"([{"provider": "kite", "stats": [{"name": "block.drive0.reads", "value": 3}]}])"));
  EXPECT_EQ(stats(R"({"target": "vm", "providers": [{"provider": "kvm", "names": ["nothing"]}]})"), Json::array());
}

TEST_F(StatsCommandsTest, WrongArgumentsAreNamed) {
  EXPECT_EQ(stats(R"({"target": "disk"})"), "Parameter 'target' does not accept value 'disk'");
  EXPECT_EQ(stats(R"({"target": "vm", "vcpus": []})"), "Parameter 'vcpus' is unexpected");
  EXPECT_EQ(stats(R"({"target": "vcpu", "vcpus": [1]})"), "Invalid parameter type for 'vcpus', expected: string");
  EXPECT_EQ(stats(R"({"target": "vm", "providers": ["kvm"]})"),
            "Invalid parameter type for 'providers', expected: object");
  EXPECT_EQ(stats(R"({"target": "vm", "providers": [{"provider": "xen"}]})"),
            "Parameter 'provider' does not accept value 'xen'");
  EXPECT_EQ(stats(R"({"target": "vm", "providers": [{"provider": "kvm", "name": []}]})"),
            "Parameter 'name' is unexpected");
}

TEST_F(StatsCommandsTest, SchemasDescribeEveryTargetOnce) {
  const auto reply = query_stats_schemas(registry_, Json::object());
  ASSERT_TRUE(reply);
  EXPECT_EQ(*reply, Json::parse(R"([
    {"provider": "kite", "target": "vm", "stats": [
      {"name": "block.drive0.reads", "type": "cumulative", "exponent": 0},
      {"name": "block.drive0.latency", "type": "log2-histogram", "unit": "seconds", "base": 10, "exponent": -9}]},
    {"provider": "kite", "target": "vcpu", "stats": [{"name": "jit.blocks", "type": "cumulative", "exponent": 0}]},
    {"provider": "kvm", "target": "vm", "stats": [{"name": "pages_4k", "type": "instant", "exponent": 0}]}])"));
  EXPECT_EQ(query_stats_schemas(registry_, {{"provider", "kvm"}})->size(), 1u);
  EXPECT_FALSE(query_stats_schemas(registry_, {{"provider", "xen"}}));
}

TEST_F(StatsCommandsTest, PeopleReadItByTargetNameAndProvider) {
  EXPECT_EQ(info_stats(registry_, "vm block.drive0.latency kite"),
            "provider: kite\n    block.drive0.latency (log2-histogram, ns): [0, 0, 1]\n");
  EXPECT_EQ(info_stats(registry_, "vm * kvm"), "provider: kvm\n    pages_4k (instant): 12\n");
  EXPECT_NE(info_stats(registry_, "").find("provider: kite, CPU #1\n    jit.blocks (cumulative): 9\n"),
            std::string::npos);
  EXPECT_NE(info_stats(registry_, "vmm").find("did you mean 'vm'"), std::string::npos);
}

}  // namespace
}  // namespace kite::monitor
