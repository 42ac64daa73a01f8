// A hostile client: random bytes to the QMP framing and parser, the option parsers, the state codec, and to a QMP
// session and a qtest server on a live machine. The first byte chooses.
#include <cstdlib>
#include <string>

#include "devices/types.h"
#include "fuzz/byte_source.h"
#include "hostile/hostile_console.h"
#include "main/launch_plan.h"
#include "monitor/json_stream.h"
#include "monitor/qmp_session.h"
#include "monitor/qtest_server.h"
#include "state/codec.h"

namespace {

using namespace kite;  // NOLINT: a test program

void frame(std::string_view text) {
  monitor::JsonStream stream;
  stream.feed(text);
  while (const auto item = stream.next()) {
    if (item->text.empty()) std::abort();  // it would never end
    if (!item->malformed) (void)monitor::Json::parse(item->text, nullptr, false);
  }
}

std::vector<std::string> lines_of(std::string_view text) {
  std::vector<std::string> lines(1);
  for (const char c : text) {
    if (c == '\n')
      lines.emplace_back();
    else
      lines.back() += c;
  }
  return lines;
}

void plan(std::string_view text) {
  TypeRegistry types;
  devices::register_device_types(types);
  if (auto made = main::plan_launch(lines_of(text), types)) (void)main::resolve_devices(*made, types);
}

void decode(std::span<const uint8_t> bytes) {
  StateReader reader(bytes);
  if (reader.begin("device") != 0) {
    uint64_t value = 0;
    std::vector<uint8_t> field;
    reader.field(1, value);
    reader.field(2, field);
    reader.end();
  }
  (void)reader.finish();
}

// A machine whose time only the client moves, with a client on its chardev.
struct Host {
  Host() {
    devices::register_device_types(types);
    machine::MachineConfig config;
    config.accelerators = {"qtest"};
    config.ram_bytes = 2 << 20;
    config.no_shutdown = true;
    executor = must(Executor::create("fuzz"));
    chardevs = std::make_unique<ChardevRegistry>(*executor, MuxHooks{});
    machine = must(machine::Machine::create(config, {.executor = *executor, .types = types, .exit = [](int) {}}));
    if (!machine->start()) std::abort();
  }
  template <class T>
  static T must(Result<T> result) {
    if (!result) std::abort();
    return std::move(*result);
  }
  void talk(std::string_view text) {
    console.type({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
    executor->run_once(0);
  }

  TypeRegistry types;
  std::unique_ptr<Executor> executor;
  std::unique_ptr<ChardevRegistry> chardevs;
  hostile::HostileConsole console{"client"};
  std::unique_ptr<machine::Machine> machine;
};

void qmp(std::string_view text) {
  Host host;
  monitor::QmpSession session({*host.machine, *host.chardevs}, host.console, false);
  if (!text.starts_with('\n')) host.talk(R"({"execute":"qmp_capabilities"})");
  for (const std::string& line : lines_of(text)) host.talk(line);
}

void qtest(std::string_view text) {
  Host host;
  monitor::QtestServer server(*host.machine, host.console);
  for (const std::string& line : lines_of(text)) {
    // A client may step a fast timer through years, and waits as long as that takes; a fuzzer has no such patience.
    constexpr size_t kLongestStep = sizeof "clock_step 999999999";
    if (line.find("clock_") != std::string::npos && line.size() > kLongestStep) continue;
    host.talk(line + "\n");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::span<const uint8_t> bytes(data + 1, size - 1);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  switch (data[0] % 5) {
    case 0: frame(text); break;
    case 1: plan(text); break;
    case 2: decode(bytes); break;
    case 3: qmp(text); break;
    default: qtest(text); break;
  }
  return 0;
}
