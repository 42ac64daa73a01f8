#include "monitor/qom_commands.h"

#include "monitor/test_monitor.h"

namespace kite::monitor {
namespace {

Json at(std::string_view path) { return {{"path", path}}; }
Json at(std::string_view path, std::string_view property) { return {{"path", path}, {"property", property}}; }

TEST(Qom, ShowsTheMachineItsDevicesAndItsCpus) {
  const TestMonitor monitor;
  ASSERT_TRUE(monitor.ask("device_add", {{"driver", "pci-testdev"}, {"id", "test0"}, {"addr", "1e"}}));

  EXPECT_EQ(monitor.answer("qom-get", at("/machine", "type")), "pc-i440fx-7.2-machine");
  const Json devices = monitor.answer("qom-list", at("/machine/peripheral"));
  EXPECT_EQ(find_entry(devices, "name", "test0").at("type"), "child<pci-testdev>");
  EXPECT_EQ(monitor.answer("qom-get", at("/machine/peripheral/test0", "addr")), "1e");
  EXPECT_EQ(monitor.answer("qom-get", at("test0", "hotplugged")), true);
  const std::string cpu = "/machine/unattached/device[0]";
  EXPECT_EQ(monitor.answer("qom-get", at(cpu, "type")), "qemu64-x86_64-cpu");
  EXPECT_EQ(monitor.answer("qom-get", at(cpu, "lm")), true);
  EXPECT_TRUE(monitor.answer("qom-get", at(cpu, "unavailable-features")).is_array());
}

TEST(Qom, WhatIsNotThereIsNamed) {
  const TestMonitor monitor;
  for (const char* const path : {"/machine/peripheral/none", "/machine/unattached/device[9]", "/nowhere", ""}) {
    const auto reply = monitor.ask("qom-list", at(path));
    ASSERT_FALSE(reply) << path;
    EXPECT_EQ(reply.error().error_class, "DeviceNotFound") << path;
  }
  EXPECT_FALSE(monitor.ask("qom-get", at("/machine", "colour")));
}

TEST(Qom, WhatADeviceWasMadeWithIsNotChanged) {
  const TestMonitor monitor;
  ASSERT_TRUE(monitor.ask("device_add", {{"driver", "pci-testdev"}, {"id", "test0"}}));
  Json arguments = at("test0", "addr");
  arguments["value"] = "1";
  EXPECT_FALSE(monitor.ask("qom-set", arguments));
}

TEST(Qom, ARemovedDeviceIsGone) {
  const TestMonitor monitor;
  ASSERT_TRUE(monitor.ask("device_add", {{"driver", "pci-testdev"}, {"id", "test0"}}));
  ASSERT_TRUE(monitor.ask("device_del", {{"id", "test0"}}));
  monitor.machine->reset(machine::Cause::kHostQmpSystemReset);  // takes what no guest has let go of
  EXPECT_TRUE(find_entry(monitor.answer("qom-list", at("/machine/peripheral")), "name", "test0").is_null());
}

}  // namespace
}  // namespace kite::monitor
