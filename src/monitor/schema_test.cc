#include "monitor/schema.h"

#include <set>

#include "monitor/display_servers.h"
#include "monitor/net_commands.h"
#include "monitor/qmp_events.h"
#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

class SchemaTest : public ::testing::Test {
 protected:
  SchemaTest() : schema_(monitor_.answer("query-qmp-schema")) {}

  [[nodiscard]] Json entry(std::string_view name) const { return find_entry(schema_, "name", name); }
  // The type of a command's argument; null when it takes none of that name.
  [[nodiscard]] Json argument(std::string_view command, std::string_view name) const {
    const Json arguments = entry(entry(command).at("arg-type").get<std::string>());
    const Json member = find_entry(arguments.at("members"), "name", name);
    return member.is_null() ? Json() : entry(member.at("type").get<std::string>());
  }
  [[nodiscard]] bool has_value(std::string_view command, std::string_view name, const char* value) const {
    const Json type = argument(command, name);
    const Json values = type.is_null() ? Json::array() : type.value("values", Json::array());
    return std::ranges::find(values, Json(value)) != values.end();
  }

  TestMonitor monitor_;
  Json schema_;
};

TEST_F(SchemaTest, HasEveryCommandAndEvent) {
  for (const QmpCommand& command : qmp_commands()) EXPECT_EQ(entry(command.name).at("meta-type"), "command");
  for (const EventSpec& event : qmp_events()) EXPECT_EQ(entry(event.name).at("meta-type"), "event");
  for (const auto& events : {stream_events(), display_events()})
    for (const PeerEventSpec& event : events) EXPECT_EQ(entry(event.name).at("meta-type"), "event");
}

TEST_F(SchemaTest, NamesAreUniqueAndAllThatAreUsedAreThere) {
  std::set<std::string> names, used;
  for (const Json& entry : schema_) {
    EXPECT_TRUE(names.insert(entry.at("name")).second) << entry;
    for (const char* const key : {"arg-type", "ret-type", "element-type"})
      if (entry.contains(key)) used.insert(entry.at(key).get<std::string>());
    for (const Json& member : entry.value("members", Json::array()))
      if (member.contains("type")) used.insert(member.at("type").get<std::string>());
  }
  for (const std::string& name : used) EXPECT_TRUE(names.contains(name)) << name;
}

TEST_F(SchemaTest, TellsWhatAnArgumentCanBe) {
  EXPECT_TRUE(has_value("screendump", "format", "png"));
  EXPECT_TRUE(has_value("netdev_add", "type", "tap"));
  EXPECT_TRUE(has_value("netdev_add", "type", "dgram"));
  EXPECT_FALSE(has_value("netdev_add", "type", "vde"));
  EXPECT_TRUE(has_value("blockdev-add", "driver", "qcow2"));
  EXPECT_EQ(argument("query-named-block-nodes", "flat").at("json-type"), "boolean");
  EXPECT_TRUE(argument("query-named-block-nodes", "deep").is_null());
}

TEST_F(SchemaTest, TellsThatOptionsAreJson) {
  const Json features = entry("device_add").at("features");
  EXPECT_NE(std::ranges::find(features, Json("json-cli-hotplug")), features.end());
}

TEST_F(SchemaTest, AnArgumentThatMayBeLeftOutHasADefault) {
  const Json arguments = entry(entry("device_add").at("arg-type").get<std::string>()).at("members");
  EXPECT_FALSE(find_entry(arguments, "name", "driver").contains("default"));
  EXPECT_TRUE(find_entry(arguments, "name", "id").contains("default"));
}

}  // namespace
}  // namespace kite::monitor
