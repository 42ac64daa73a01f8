// What monitors hear of jobs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "block/drive.h"

namespace kite::block {

enum class JobType : uint8_t { kCommit, kStream, kMirror, kBackup, kCreate };
std::string_view job_type_name(JobType type);

enum class JobStatus : uint8_t {
  kCreated,
  kRunning,
  kPaused,
  kReady,    // source and target are the same, and stay so
  kStandby,  // ready, and paused
  kWaiting,
  kPending,  // waits for finalize
  kAborting,
  kConcluded,
  kNull,
};
std::string_view job_status_name(JobStatus status);

// What a monitor is told, and what it sees when it asks.
struct JobReport {
  std::string id;
  JobType type = JobType::kCreate;
  JobStatus status = JobStatus::kCreated;
  uint64_t done = 0, total = 0, speed = 0;  // bytes
  bool paused = false, ready = false, busy = false, failed_io = false, no_space = false;
  bool auto_finalize = true, auto_dismiss = true;
  std::string error = {};
};
struct JobEvent {
  enum class Kind : uint8_t { kStatus, kReady, kCompleted, kCancelled, kError, kPending } kind = Kind::kStatus;
  JobReport job = {};
  bool reading = false;               // kError
  OnError action = OnError::kReport;  // kError
};

}  // namespace kite::block
