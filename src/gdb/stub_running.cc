// The machine runs and stops: what GDB asks for, and what it is told.
#include <algorithm>
#include <utility>

#include "gdb/stub.h"

namespace kite::gdb {

namespace {

// GDB's own numbers. [gdb/signals.def]
enum Signal : unsigned { kInt = 2, kQuit = 3, kTrap = 5, kAbrt = 6, kAlrm = 14, kIo = 23, kXcpu = 24, kUnknown = 143 };

Signal signal_of(machine::RunState state) {
  using machine::RunState;
  switch (state) {
    case RunState::kPrelaunch:
    case RunState::kDebug: return kTrap;
    case RunState::kPaused: return kInt;
    case RunState::kShutdown: return kQuit;
    case RunState::kIoError: return kIo;
    case RunState::kInternalError:
    case RunState::kGuestPanicked: return kAbrt;
    case RunState::kFinishMigrate: return kXcpu;
    default: return kUnknown;
  }
}

}  // namespace

// --- stops

// [E.3] The client drops this unless it has let the machine run, so then alone it is told.
void Stub::machine_stopped() {
  if (!attached_ || !owes_stop_ || machine_.state() == machine::RunState::kRunning) return;
  if (machine_.state() == machine::RunState::kSaveVm || machine_.state() == machine::RunState::kRestoreVm) return;
  owes_stop_ = false;
  reply(stop_reply());
  output_.flush();
}

void Stub::machine_ended(int status) {
  if (attached_ && owes_stop_) reply(fmt::format("W{:02x}", static_cast<uint8_t>(status)));
  output_.flush();
  attached_ = false;
}

std::string Stub::stop_reply() {
  machine_.hold_vcpus({});
  const machine::RunState state = machine_.state();
  std::string why;
  if (state == machine::RunState::kDebug) {
    thread_ = run_thread_ = machine_.debugged_vcpu();
    why = reason(machine_.vcpu(thread_).debug_stop());
  }
  return fmt::format("T{:02x}thread:{:02x};{}", static_cast<unsigned>(signal_of(state)), thread_ + 1, why);
}

// [E.3] swbreak and hwbreak are for clients that know them.
std::string Stub::reason(const DebugStop& stop) const {
  bool hardware = stop.breakpoint && points_.has_hardware(stop.rip);
  if (stop.watch) {
    const Points::Watched watched = points_.watched(*stop.watch);
    switch (watched.kind) {
      case PointKind::kWrite: return fmt::format("watch:{:x};", watched.address);
      case PointKind::kRead: return fmt::format("rwatch:{:x};", watched.address);
      case PointKind::kAccess: return fmt::format("awatch:{:x};", watched.address);
      default: hardware = true;
    }
  }
  if (hardware) return tells_hw_ ? "hwbreak:;" : "";
  return stop.breakpoint && tells_sw_ ? "swbreak:;" : "";
}

// A client asks this when it begins: what others have left is removed.
void Stub::last_signal(std::string_view) {
  points_.remove_all(thread_);
  const std::string state = stop_reply();
  reply(machine_.state() == machine::RunState::kDebug ? state : fmt::format("T05thread:{:02x};", thread_ + 1));
}

// --- running

Result<> Stub::ask_vcpus(const std::vector<Action>& actions) {
  for (size_t vcpu = 0; vcpu < actions.size(); ++vcpu) {
    GuestDebug wishes = points_.wishes();
    wishes.single_step = actions[vcpu] == Action::kStep;
    wishes.hold_interrupts = wishes.single_step && hold_interrupts_;
    KITE_TRY(machine_.vcpu(vcpu).set_debug(wishes));
  }
  return {};
}

// A machine that cannot go on has stopped again.
void Stub::resume(const std::vector<Action>& actions) {
  if (!ask_vcpus(actions)) return reply(kBadArgument);
  std::vector<size_t> held;
  for (size_t vcpu = 0; vcpu < actions.size(); ++vcpu)
    if (actions[vcpu] == Action::kStay) held.push_back(vcpu);
  machine_.hold_vcpus(held);
  owes_stop_ = true;
  if (!machine_.resume()) machine_stopped();
}

// All others run as well.
void Stub::resume_from(std::string_view address, Action action) {
  if (!address.empty()) {
    const auto rip = take_number(address);
    x86::ArchState state = state_of(run_thread_);
    state.rip = rip.value_or(0);
    if (!rip || !address.empty() || !set_state(run_thread_, state)) return reply(kBadArgument);
  }
  std::vector<Action> actions(machine_.vcpu_count(), Action::kRun);
  actions[run_thread_] = action;
  resume(actions);
}

void Stub::go_on(std::string_view rest) { resume_from(rest, Action::kRun); }
void Stub::step(std::string_view rest) { resume_from(rest, Action::kStep); }

// A machine has no signals.
void Stub::go_on_with_signal(std::string_view rest) {
  const bool number = take_number(rest).has_value();
  if (!number || (!rest.empty() && !take(rest, ";"))) return reply(kBadArgument);
  resume_from(rest, Action::kRun);
}

void Stub::step_with_signal(std::string_view rest) {
  const bool number = take_number(rest).has_value();
  if (!number || (!rest.empty() && !take(rest, ";"))) return reply(kBadArgument);
  resume_from(rest, Action::kStep);
}

void Stub::actions_known(std::string_view) { reply("vCont;c;C;s;S"); }

// [E.2, vCont] For each thread the leftmost action that is meant for it counts; those without one stay.
void Stub::act(std::string_view rest) {
  std::vector<Action> actions(machine_.vcpu_count(), Action::kStay);
  std::vector<bool> decided(actions.size());
  while (true) {
    std::string_view one = rest.substr(0, rest.find(';'));
    const bool last = one.size() == rest.size();
    rest.remove_prefix(last ? one.size() : one.size() + 1);
    if (one.empty()) return reply(kBadArgument);
    const char what = one.front();
    one.remove_prefix(1);
    if ((what == 'C' || what == 'S') && !take_number(one)) return reply(kBadArgument);
    if (what != 'c' && what != 'C' && what != 's' && what != 'S') return reply("");
    auto meant = threads("-1");
    if (take(one, ":"))
      meant = threads(one);
    else if (!one.empty())
      meant.reset();
    if (!meant) return reply(kBadArgument);
    for (size_t vcpu = meant->first; vcpu < meant->end; ++vcpu) {
      if (decided[vcpu]) continue;
      decided[vcpu] = true;
      actions[vcpu] = what == 's' || what == 'S' ? Action::kStep : Action::kRun;
    }
    if (last) return resume(actions);
  }
}

std::optional<Stub::Threads> Stub::threads(std::string_view id) const {
  if (id == "-1") return Threads{0, machine_.vcpu_count()};
  const auto number = take_number(id);
  if (!number || !id.empty() || *number > machine_.vcpu_count()) return std::nullopt;
  if (*number == 0) return Threads{thread_, thread_ + 1};
  return Threads{*number - 1, *number};
}

void Stub::detach(std::string_view) {
  leave();
  attached_ = true;
  machine_.hold_vcpus({});
  (void)machine_.resume();
  reply("OK");
}

void Stub::kill(std::string_view) { machine_.request_shutdown(machine::Cause::kHostUi); }

void Stub::kill_process(std::string_view) {
  reply("OK");
  machine_.request_shutdown(machine::Cause::kHostUi);
}

}  // namespace kite::gdb
