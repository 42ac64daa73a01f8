// A hostile client: random bytes to the QMP framing and parser, the option parsers and the state codec.
#include <cstdlib>
#include <string>

#include "devices/types.h"
#include "fuzz/byte_source.h"
#include "main/launch_plan.h"
#include "monitor/json_stream.h"
#include "monitor/qmp_error.h"
#include "state/codec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace kite;  // NOLINT: a test program
  const std::string text(reinterpret_cast<const char*>(data), size);

  monitor::JsonStream stream;
  stream.feed(text);
  while (const auto item = stream.next()) {
    if (item->text.empty()) std::abort();  // it would never end
    if (!item->malformed) (void)monitor::Json::parse(item->text, nullptr, false);
  }

  TypeRegistry types;
  devices::register_device_types(types);
  std::vector<std::string> words(1);
  for (const char c : text) {
    if (c == '\n')
      words.emplace_back();
    else
      words.back() += c;
  }
  if (auto plan = main::plan_launch(words, types)) (void)main::resolve_devices(*plan, types);

  StateReader reader({data, size});
  if (reader.begin("device") != 0) {
    uint64_t value = 0;
    std::vector<uint8_t> bytes;
    reader.field(1, value);
    reader.field(2, bytes);
    reader.end();
  }
  (void)reader.finish();
  return 0;
}
