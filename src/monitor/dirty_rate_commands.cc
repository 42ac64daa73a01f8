#include "monitor/dirty_rate_commands.h"

#include <algorithm>
#include <charconv>

#include "monitor/words.h"

namespace kite::monitor {

namespace {

using machine::DirtyRate;
using Status = DirtyRate::Status;

// Indexed by Mode. There is a third in the protocol.
constexpr std::string_view kModes[] = {"page-sampling", "dirty-bitmap"};
constexpr std::string_view kRings = "dirty-ring";

std::string_view mode_name(DirtyRate::Mode mode) { return kModes[static_cast<size_t>(mode)]; }

std::string_view status_name(Status status) {
  switch (status) {
    case Status::kUnstarted: return "unstarted";
    case Status::kMeasuring: return "measuring";
    case Status::kMeasured: return "measured";
  }
  return "unstarted";
}

std::expected<DirtyRate::Mode, QmpError> mode_of(const std::string& name) {
  if (name == kRings)
    return qmp_fail("mode {} is not available: no vCPU is measured alone; use {} or {}", name, kModes[0], kModes[1]);
  if (name == kModes[0]) return DirtyRate::Mode::kPageSampling;
  if (name == kModes[1]) return DirtyRate::Mode::kDirtyBitmap;
  return qmp_fail("Parameter 'mode' does not accept value '{}'", name);
}

}  // namespace

QmpReply calc_dirty_rate(DirtyRate& rate, const Json& arguments) {
  DirtyRate::Order order{.seconds = arguments.at("calc-time").get<int64_t>()};
  if (const auto mode = arguments.find("mode"); mode != arguments.end()) {
    const auto known = mode_of(mode->get<std::string>());
    if (!known) return std::unexpected(known.error());
    order.mode = *known;
  }
  if (const auto samples = arguments.find("sample-pages"); samples != arguments.end())
    order.samples = samples->get<int64_t>();
  if (auto done = rate.start(order); !done) return qmp_fail("{}", done.error().message);
  return Json::object();
}

QmpReply query_dirty_rate(const DirtyRate& rate) {
  const DirtyRate::Report& report = rate.report();
  Json answer{{"status", status_name(report.status)},
              {"sample-pages", report.samples},
              {"mode", mode_name(report.mode)},
              {"start-time", report.start},
              {"calc-time", report.seconds}};
  if (report.status == Status::kMeasured) answer["dirty-rate"] = report.mib_per_second;
  return answer;
}

std::string human_calc_dirty_rate(DirtyRate& rate, std::string_view arguments) {
  constexpr std::string_view kUsage = "usage: calc_dirty_rate [-b] SECONDS [SAMPLES]\n";
  Json order;
  std::string_view word = next_word(arguments);
  for (; word == "-b" || word == "-r"; word = next_word(arguments)) order["mode"] = word == "-b" ? kModes[1] : kRings;
  for (const char* name : {"calc-time", "sample-pages"}) {
    if (word.empty()) break;
    int64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc{} || end != word.data() + word.size()) return std::string(kUsage);
    order[name] = value;
    word = next_word(arguments);
  }
  if (!order.contains("calc-time") || !word.empty()) return std::string(kUsage);
  if (const QmpReply reply = calc_dirty_rate(rate, order); !reply)
    return fmt::format("Error: {}\n", reply.error().description);
  return fmt::format("measuring for {} seconds; 'info dirty_rate' shows the result\n", rate.report().seconds);
}

std::string info_dirty_rate(const DirtyRate& rate) {
  const DirtyRate::Report& report = rate.report();
  const std::string result =
      report.status == Status::kMeasured ? fmt::format("{} (MB/s)", report.mib_per_second) : "(not ready)";
  return fmt::format(
      "Status: {}\nStart Time: {} (sec)\nSample Pages: {} (per GB)\nPeriod: {} (sec)\nMode: {}\nDirty rate: {}\n",
      status_name(report.status), report.start, report.samples, report.seconds, mode_name(report.mode), result);
}

}  // namespace kite::monitor
