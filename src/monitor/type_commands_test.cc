#include "monitor/type_commands.h"

#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

TEST(TypeCommands, BoardsHaveAliasesAndTheirCpusTypesThatExist) {
  const TestMonitor monitor;
  const Json machines = monitor.answer("query-machines");
  const Json types = monitor.answer("qom-list-types");
  EXPECT_EQ(find_entry(machines, "alias", "pc").at("name"), "pc-i440fx-7.2");
  EXPECT_EQ(find_entry(machines, "alias", "q35").at("name"), "pc-q35-7.2");
  EXPECT_FALSE(find_entry(machines, "name", "none").contains("default-ram-id"));
  for (const Json& machine : machines) {
    EXPECT_FALSE(find_entry(types, "name", machine.at("name").get<std::string>() + "-machine").is_null());
    if (!machine.contains("default-cpu-type")) continue;
    EXPECT_FALSE(find_entry(types, "name", machine.at("default-cpu-type").get<std::string>()).is_null());
  }
}

TEST(TypeCommands, PropertiesOfWhatIsNotThere) {
  const TestMonitor monitor;
  for (const char* const command : {"device-list-properties", "qom-list-properties"}) {
    const auto reply = monitor.ask(command, {{"typename", "virtio-net-ccw"}});
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().error_class, "DeviceNotFound");
  }
  EXPECT_TRUE(monitor.answer("qom-list-properties", {{"typename", "memory-backend-file"}}).is_array());
}

TEST(TypeCommands, AModelIsExpandedByWhatTheAcceleratorGives) {
  const TestMonitor monitor;
  const Json cpu{{"name", "qemu64"}, {"props", {{"pni", false}}}};
  const Json model = monitor.answer("query-cpu-model-expansion", {{"type", "static"}, {"model", cpu}}).at("model");
  EXPECT_EQ(model.at("name"), "base");
  EXPECT_EQ(model.at("props").at("pni"), false);
  EXPECT_EQ(model.at("props").at("lm"), true);
  EXPECT_EQ(model.at("props").at("vendor"), "AuthenticAMD");
  EXPECT_FALSE(monitor.ask("query-cpu-model-expansion", {{"type", "half"}, {"model", cpu}}));
  EXPECT_FALSE(monitor.ask("query-cpu-model-expansion", {{"type", "full"}, {"model", {{"name", "qemu65"}}}}));
  EXPECT_FALSE(monitor.ask("query-cpu-model-expansion",
                           {{"type", "full"}, {"model", {{"name", "host"}, {"props", {{"hv-passthrough", true}}}}}}));
}

TEST(TypeCommands, EveryModelHasAType) {
  const TestMonitor monitor;
  const Json types = monitor.answer("qom-list-types", {{"implements", "x86_64-cpu"}});
  for (const Json& definition : monitor.answer("query-cpu-definitions"))
    EXPECT_FALSE(find_entry(types, "name", definition.at("typename").get<std::string>()).is_null()) << definition;
}

}  // namespace
}  // namespace kite::monitor
