#include "monitor/job_commands.h"

#include "machine/drive_store.h"
#include "monitor/words.h"
#include "object/object_type.h"

namespace kite::monitor {

namespace {

using block::Job;
using block::JobReport;
using block::JobTable;
using Context = MonitorContext;
using Type = Json::value_t;

// --- on the block thread

Task<std::vector<JobReport>> reports(const JobTable& jobs) {
  std::vector<JobReport> all;
  for (const auto& job : jobs.all()) all.push_back(job->report());
  co_return all;
}

struct Asked {
  bool found = false;
  Result<> done;
};
template <class... Args>
Task<Asked> ask(const JobTable& jobs, std::string id, Result<> (Job::*request)(Args...), Args... args) {
  const std::shared_ptr<Job> job = jobs.find(id);
  if (job == nullptr) co_return Asked{};
  co_return Asked{.found = true, .done = (*job.*request)(args...)};
}
Task<Asked> drop(JobTable& jobs, std::string id) {
  if (jobs.find(id) == nullptr) co_return Asked{};
  co_return Asked{.found = true, .done = jobs.dismiss(id)};
}

// --- requests

// The commands of all jobs name one by "id", those of block jobs by "device".
template <class... Args>
QmpReply request(Context& context, const Json& arguments, Result<> (Job::*what)(Args...), Args... args) {
  const bool by_device = arguments.contains("device");
  const std::string id = arguments.at(by_device ? "device" : "id");
  machine::DriveStore* const store = context.machine.drives();
  const Asked asked = store == nullptr ? Asked{} : store->run(ask(store->jobs(), id, what, args...));
  if (!asked.found && by_device)
    return std::unexpected(QmpError{"DeviceNotActive", fmt::format("Block job '{}' not found", id)});
  if (!asked.found) return qmp_fail("Job not found");
  if (!asked.done) return qmp_fail("{}", asked.done.error().message);
  return Json::object();
}

QmpReply pause(Context& context, const Json& arguments) { return request(context, arguments, &Job::pause); }
QmpReply resume(Context& context, const Json& arguments) { return request(context, arguments, &Job::resume); }
QmpReply complete(Context& context, const Json& arguments) { return request(context, arguments, &Job::complete); }
QmpReply finalize(Context& context, const Json& arguments) { return request(context, arguments, &Job::finalize); }
// [QAPI] job-cancel always forces.
QmpReply cancel(Context& context, const Json& arguments) { return request(context, arguments, &Job::cancel, true); }
QmpReply cancel_block_job(Context& context, const Json& arguments) {
  return request(context, arguments, &Job::cancel, arguments.value("force", false));
}

QmpReply set_speed(Context& context, const Json& arguments) {
  const Json& speed = arguments.at("speed");
  if (!speed.is_number_unsigned() && speed.get<int64_t>() < 0)
    return qmp_fail("Parameter 'speed' expects a non-negative value");
  return request(context, arguments, &Job::set_speed, speed.get<uint64_t>());
}

QmpReply dismiss(Context& context, const Json& arguments) {
  const std::string id = arguments.at("id");
  machine::DriveStore* const store = context.machine.drives();
  const Asked asked = store == nullptr ? Asked{} : store->run(drop(store->jobs(), id));
  if (!asked.found) return qmp_fail("Job not found");
  if (!asked.done) return qmp_fail("{}", asked.done.error().message);
  return Json::object();
}

// --- insight

std::vector<JobReport> all_reports(Context& context) {
  machine::DriveStore* const store = context.machine.drives();
  return store == nullptr ? std::vector<JobReport>{} : store->run(reports(store->jobs()));
}

QmpReply query_jobs(Context& context, const Json&) {
  Json list = Json::array();
  for (const JobReport& job : all_reports(context)) {
    Json json{{"id", job.id},
              {"type", block::job_type_name(job.type)},
              {"status", block::job_status_name(job.status)},
              {"current-progress", job.done},
              {"total-progress", job.total}};
    if (!job.error.empty()) json["error"] = job.error;
    list.push_back(std::move(json));
  }
  return list;
}

QmpReply query_block_jobs(Context& context, const Json&) {
  Json list = Json::array();
  for (const JobReport& job : all_reports(context)) {
    if (job.type == block::JobType::kCreate) continue;
    Json json{{"type", block::job_type_name(job.type)},
              {"device", job.id},
              {"len", job.total},
              {"offset", job.done},
              {"busy", job.busy},
              {"paused", job.paused},
              {"speed", job.speed},
              {"io-status", job.no_space    ? "nospace"
                            : job.failed_io ? "failed"
                                            : "ok"},
              {"ready", job.ready},
              {"status", block::job_status_name(job.status)},
              {"auto-finalize", job.auto_finalize},
              {"auto-dismiss", job.auto_dismiss}};
    if (!job.error.empty()) json["error"] = job.error;
    list.push_back(std::move(json));
  }
  return list;
}

constexpr ArgumentSpec kId[] = {{"id", Type::string, true}};
constexpr ArgumentSpec kDevice[] = {{"device", Type::string, true}};
constexpr ArgumentSpec kCancel[] = {{"device", Type::string, true}, {"force", Type::boolean, false}};
constexpr ArgumentSpec kSpeed[] = {{"device", Type::string, true}, {"speed", Type::number_integer, true}};

constexpr QmpCommand kJobCommands[] = {
    {"query-jobs", {}, query_jobs},
    {"query-block-jobs", {}, query_block_jobs},
    {"job-pause", kId, pause},
    {"job-resume", kId, resume},
    {"job-cancel", kId, cancel},
    {"job-complete", kId, complete},
    {"job-finalize", kId, finalize},
    {"job-dismiss", kId, dismiss},
    {"block-job-pause", kDevice, pause},
    {"block-job-resume", kDevice, resume},
    {"block-job-cancel", kCancel, cancel_block_job},
    {"block-job-complete", kDevice, complete},
    {"block-job-finalize", kId, finalize},
    {"block-job-dismiss", kId, dismiss},
    {"block-job-set-speed", kSpeed, set_speed},
};

// --- for people

std::string asked_text(const QmpReply& reply) {
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

std::string human_request(Context& context, std::string_view command, std::string_view rest) {
  const std::string_view id = next_word(rest);
  if (id.empty()) {
    std::string name(command);
    for (char& letter : name) letter = letter == '-' ? '_' : letter;
    return fmt::format("usage: {} JOB\n", name);
  }
  return asked_text(run_qmp_command(context, command, {{"device", std::string(id)}}));
}

}  // namespace

std::span<const QmpCommand> job_commands() { return kJobCommands; }

std::string info_block_jobs(Context& context, std::string_view) {
  std::string text;
  for (const JobReport& job : all_reports(context)) {
    if (job.type == block::JobType::kCreate) continue;
    text += fmt::format("Type {}, device {}: Completed {} of {} bytes, speed limit {} bytes/s, {}\n",
                        block::job_type_name(job.type), job.id, job.done, job.total, job.speed,
                        block::job_status_name(job.status));
  }
  return text.empty() ? "No active jobs\n" : text;
}

std::string human_job_cancel(Context& context, std::string_view rest) {
  std::string_view word = next_word(rest);
  const bool force = word == "-f";
  if (force) word = next_word(rest);
  if (word.empty()) return "usage: block_job_cancel [-f] JOB\n";
  return asked_text(run_qmp_command(context, "block-job-cancel", {{"device", std::string(word)}, {"force", force}}));
}
std::string human_job_complete(Context& context, std::string_view rest) {
  return human_request(context, "block-job-complete", rest);
}
std::string human_job_pause(Context& context, std::string_view rest) {
  return human_request(context, "block-job-pause", rest);
}
std::string human_job_resume(Context& context, std::string_view rest) {
  return human_request(context, "block-job-resume", rest);
}
std::string human_job_set_speed(Context& context, std::string_view rest) {
  const std::string id(next_word(rest)), text(next_word(rest));
  constexpr uint64_t kMebi = 1 << 20;
  const auto speed = parse_size(text, kMebi);
  if (id.empty() || !speed) return "usage: block_job_set_speed JOB SPEED (in MiB a second, or with a suffix)\n";
  return asked_text(run_qmp_command(context, "block-job-set-speed", {{"device", id}, {"speed", *speed}}));
}

}  // namespace kite::monitor
