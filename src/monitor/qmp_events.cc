#include "monitor/qmp_events.h"

#include <algorithm>
#include <cerrno>

namespace kite::monitor {

namespace {

using machine::MachineEvent;
using Kind = MachineEvent::Kind;
using Type = Json::value_t;

Json cause_json(const MachineEvent& event) {
  return {{"guest", machine::cause_by_guest(event.cause)}, {"reason", machine::cause_name(event.cause)}};
}

Json action_json(const MachineEvent& event) { return {{"action", event.action}}; }

Json deleted_json(const MachineEvent& event) { return {{"device", event.device}, {"path", event.qdev}}; }

Json tray_json(const MachineEvent& event) {
  return {{"device", event.device}, {"tray-open", event.tray_open}, {"id", event.qdev}};
}

std::string_view action_name(block::OnError action) {
  switch (action) {
    case block::OnError::kStop: return "stop";
    case block::OnError::kIgnore: return "ignore";
    default: return "report";
  }
}

Json io_error_json(const MachineEvent& event) {
  const block::DriveErrorEvent& error = event.io_error;
  Json data{{"device", event.device},
            {"nospace", error.code == ENOSPC},
            {"node-name", error.node_name},
            {"reason", errno_text(error.code)},
            {"operation", error.operation == block::DriveOperation::kRead ? "read" : "write"},
            {"action", action_name(error.action)}};
  if (error.node_name.empty()) data.erase("node-name");
  return data;
}

Json balloon_json(const MachineEvent& event) { return {{"actual", event.bytes}}; }

Json port_json(const MachineEvent& event) { return {{"open", event.port_open}, {"id", event.device}}; }

Json migration_json(const MachineEvent& event) { return {{"status", event.action}}; }

Json pass_json(const MachineEvent& event) { return {{"pass", event.pass}}; }

Json job_status_json(const MachineEvent& event) {
  return {{"status", block::job_status_name(event.job.job.status)}, {"id", event.job.job.id}};
}

Json job_json(const MachineEvent& event) {
  const block::JobReport& job = event.job.job;
  Json data{{"type", block::job_type_name(job.type)},
            {"device", job.id},
            {"len", job.total},
            {"offset", job.done},
            {"speed", job.speed}};
  if (!job.error.empty()) data["error"] = job.error;
  return data;
}

Json job_error_json(const MachineEvent& event) {
  return {{"device", event.job.job.id},
          {"operation", event.job.reading ? "read" : "write"},
          {"action", action_name(event.job.action)}};
}

Json job_pending_json(const MachineEvent& event) {
  return {{"type", block::job_type_name(event.job.job.type)}, {"id", event.job.job.id}};
}

Json export_json(const MachineEvent& event) { return {{"id", event.device}}; }

constexpr ArgumentSpec kCause[] = {{"guest", Type::boolean, true}, {"reason", Type::string, true}};
constexpr ArgumentSpec kAction[] = {{"action", Type::string, true}};
constexpr ArgumentSpec kDeleted[] = {{"device", Type::string, false}, {"path", Type::string, true}};
constexpr ArgumentSpec kTray[] = {
    {"device", Type::string, true}, {"tray-open", Type::boolean, true}, {"id", Type::string, true}};
constexpr ArgumentSpec kIoError[] = {{"device", Type::string, true},     {"nospace", Type::boolean, true},
                                     {"node-name", Type::string, false}, {"reason", Type::string, true},
                                     {"operation", Type::string, true},  {"action", Type::string, true}};
constexpr ArgumentSpec kBalloon[] = {{"actual", Type::number_integer, true}};
constexpr ArgumentSpec kPort[] = {{"id", Type::string, true}, {"open", Type::boolean, true}};
constexpr ArgumentSpec kMigration[] = {{"status", Type::string, true}};
constexpr ArgumentSpec kPass[] = {{"pass", Type::number_integer, true}};

constexpr ArgumentSpec kJobStatus[] = {{"status", Type::string, true}, {"id", Type::string, true}};
constexpr ArgumentSpec kJob[] = {{"type", Type::string, true},
                                 {"device", Type::string, true},
                                 {"len", Type::number_integer, true},
                                 {"offset", Type::number_integer, true},
                                 {"speed", Type::number_integer, true}};
constexpr ArgumentSpec kJobCompleted[] = {{"type", Type::string, true},          {"device", Type::string, true},
                                          {"len", Type::number_integer, true},   {"offset", Type::number_integer, true},
                                          {"speed", Type::number_integer, true}, {"error", Type::string, false}};
constexpr ArgumentSpec kJobError[] = {
    {"device", Type::string, true}, {"operation", Type::string, true}, {"action", Type::string, true}};
constexpr ArgumentSpec kJobPending[] = {{"type", Type::string, true}, {"id", Type::string, true}};

constexpr ArgumentSpec kExport[] = {{"id", Type::string, true}};

constexpr EventSpec kEvents[] = {
    {Kind::kReset, "RESET", kCause, cause_json},
    {Kind::kShutdown, "SHUTDOWN", kCause, cause_json},
    {Kind::kPowerdown, "POWERDOWN"},
    {Kind::kStop, "STOP"},
    {Kind::kResume, "RESUME"},
    {Kind::kSuspend, "SUSPEND"},
    {Kind::kSuspendDisk, "SUSPEND_DISK"},
    {Kind::kWakeup, "WAKEUP"},
    {Kind::kWatchdog, "WATCHDOG", kAction, action_json},
    {Kind::kDeviceDeleted, "DEVICE_DELETED", kDeleted, deleted_json},
    {Kind::kBlockIoError, "BLOCK_IO_ERROR", kIoError, io_error_json},
    {Kind::kTrayMoved, "DEVICE_TRAY_MOVED", kTray, tray_json},
    {Kind::kBalloonChange, "BALLOON_CHANGE", kBalloon, balloon_json},
    {Kind::kPortChange, "VSERPORT_CHANGE", kPort, port_json},
    {Kind::kMigration, "MIGRATION", kMigration, migration_json},
    {Kind::kMigrationPass, "MIGRATION_PASS", kPass, pass_json},
    {Kind::kJobStatus, "JOB_STATUS_CHANGE", kJobStatus, job_status_json},
    {Kind::kJobReady, "BLOCK_JOB_READY", kJob, job_json},
    {Kind::kJobCompleted, "BLOCK_JOB_COMPLETED", kJobCompleted, job_json},
    {Kind::kJobCancelled, "BLOCK_JOB_CANCELLED", kJob, job_json},
    {Kind::kJobError, "BLOCK_JOB_ERROR", kJobError, job_error_json},
    {Kind::kJobPending, "BLOCK_JOB_PENDING", kJobPending, job_pending_json},
    {Kind::kExportDeleted, "BLOCK_EXPORT_DELETED", kExport, export_json},
};

}  // namespace

std::span<const EventSpec> qmp_events() { return kEvents; }

Json event_json(const MachineEvent& event) {
  const auto* const spec = std::ranges::find(kEvents, event.kind, &EventSpec::kind);
  if (spec == std::end(kEvents)) return {};
  Json message{{"event", spec->name}};
  if (spec->data != nullptr) message["data"] = spec->data(event);
  return message;
}

}  // namespace kite::monitor
