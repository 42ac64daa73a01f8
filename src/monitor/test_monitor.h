// A machine that a test client's monitor looks at: no CPU runs (qtest), time stands still.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "devices/types.h"
#include "machine/object_types.h"
#include "monitor/qmp_commands.h"

namespace kite::monitor {

class TestMonitor {
 public:
  explicit TestMonitor(machine::MachineConfig config = {}, machine::DriveStore* drives = nullptr) {
    devices::register_device_types(types);
    machine::register_machine_types(types);
    config.accelerators = {"qtest"};
    config.ram_bytes = 2 << 20;
    executor = must(Executor::create("test"));
    chardevs = std::make_unique<ChardevRegistry>(*executor, MuxHooks{});
    machine = must(machine::Machine::create(
        config, {.executor = *executor, .types = types, .exit = [](int) {}, .drives = drives}));
    must(machine->start());
    context = std::make_unique<MonitorContext>(MonitorContext{.machine = *machine, .chardevs = *chardevs});
  }

  [[nodiscard]] QmpReply ask(std::string_view command, const Json& arguments = Json::object()) const {
    return run_qmp_command(*context, command, arguments);
  }
  // The answer, which there is.
  [[nodiscard]] Json answer(std::string_view command, const Json& arguments = Json::object()) const {
    auto reply = ask(command, arguments);
    EXPECT_TRUE(reply) << command << ": " << (reply ? "" : reply.error().description);
    return reply ? *reply : Json();
  }

  TypeRegistry types;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<ChardevRegistry> chardevs;
  std::unique_ptr<machine::Machine> machine;
  std::unique_ptr<MonitorContext> context;

 private:
  template <class T>
  static T must(Result<T> result) {
    if (!result) throw std::runtime_error(result.error().message);
    if constexpr (!std::is_void_v<T>) return std::move(*result);
  }
};

// The entry of a list whose `key` is `value`; null when there is none.
inline Json find_entry(const Json& list, std::string_view key, std::string_view value) {
  for (const Json& entry : list)
    if (entry.contains(key) && entry.at(key) == value) return entry;
  return {};
}

}  // namespace kite::monitor
