// Stub: what GDB talks to over its remote serial protocol, on one character device. vCPU n is thread n + 1.
// ["Debugging with GDB", appendix E]
//
// A client that comes stops the machine, and so does every packet: GDB expects nothing to move while it asks. It learns
// that the machine stopped when it let it run. When it goes away its points go, too; the machine stays as it is.
// Main executor's thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "chardev/chardev.h"
#include "gdb/packet.h"
#include "gdb/points.h"
#include "gdb/registers.h"
#include "machine/guest_view.h"
#include "machine/machine.h"
#include "monitor/output_queue.h"
#include "monitor/qmp_commands.h"

namespace kite::gdb {

class Stub final : public ChardevClient {
 public:
  Stub(monitor::MonitorContext monitor, Chardev& chardev);
  ~Stub() override;

  size_t can_receive() override { return output_.size() == 0 ? PacketReader::kMostBytes : 0; }
  void received(std::span<const uint8_t> bytes) override;
  void event(ChardevEvent event) override;
  void writable() override;

  // The machine stands still, or stood still in between.
  void machine_stopped();
  // The process is about to end with this status.
  void machine_ended(int status);
  // Inside of a packet.
  [[nodiscard]] bool busy() const { return busy_; }

 private:
  struct Command {
    std::string_view prefix;
    void (Stub::*run)(std::string_view rest);
  };
  enum class Action : uint8_t { kStay, kRun, kStep };
  // Errors, as QEMU numbers them.
  static constexpr std::string_view kBadAddress = "E14", kBadArgument = "E22";

  void handle(const PacketReader::Item& item);
  void interrupt();
  void run(std::string_view packet);
  void reply(std::string_view text);
  void reply_ok(bool ok, std::string_view otherwise = kBadArgument) { reply(ok ? "OK" : otherwise); }
  void attach();
  void leave();

  // --- running (stub_running.cc)
  void last_signal(std::string_view rest);
  void go_on(std::string_view rest);
  void go_on_with_signal(std::string_view rest);
  void step(std::string_view rest);
  void step_with_signal(std::string_view rest);
  void resume_from(std::string_view address, Action action);
  void actions_known(std::string_view rest);
  void act(std::string_view rest);
  void detach(std::string_view rest);
  void kill(std::string_view rest);
  void kill_process(std::string_view rest);
  void resume(const std::vector<Action>& actions);
  Result<> ask_vcpus(const std::vector<Action>& actions);
  [[nodiscard]] std::string stop_reply();
  [[nodiscard]] std::string reason(const DebugStop& stop) const;
  // All of them for -1, any for 0. False: there is none of this name.
  struct Threads {
    size_t first, end;
  };
  [[nodiscard]] std::optional<Threads> threads(std::string_view id) const;

  // --- state (stub_state.cc)
  void read_registers(std::string_view rest);
  void write_registers(std::string_view rest);
  void read_register(std::string_view rest);
  void write_register(std::string_view rest);
  void read_memory(std::string_view rest);
  void write_memory(std::string_view rest);
  void write_binary(std::string_view rest);
  void insert_point(std::string_view rest);
  void remove_point(std::string_view rest);
  void change_point(std::string_view rest, Points::Outcome (Points::*change)(size_t, PointKind, uint64_t, uint64_t));
  [[nodiscard]] x86::ArchState state_of(size_t vcpu);
  bool set_state(size_t vcpu, const x86::ArchState& state);
  [[nodiscard]] size_t registers_shown() const;

  // --- questions (stub_queries.cc)
  void extended(std::string_view rest);
  void choose_thread(std::string_view rest);
  void thread_alive(std::string_view rest);
  void supported(std::string_view rest);
  void description(std::string_view rest);
  void current_thread(std::string_view rest);
  void first_threads(std::string_view rest);
  void more_threads(std::string_view rest);
  void thread_info(std::string_view rest);
  void attached(std::string_view rest);
  void monitor_command(std::string_view rest);
  void acknowledge_no_more(std::string_view rest);
  void physical_mode(std::string_view rest);
  void set_physical_mode(std::string_view rest);
  void step_bits(std::string_view rest);
  void step_mode(std::string_view rest);
  void set_step_mode(std::string_view rest);
  void unknown(std::string_view rest);

  monitor::MonitorContext monitor_;
  machine::Machine& machine_;
  Chardev& chardev_;
  machine::GuestView view_{machine_};
  Points points_{machine_, view_};
  const Registers registers_;
  const std::string description_;
  PacketReader reader_;
  monitor::OutputQueue output_;

  // Of the client that is there.
  bool attached_ = false;
  bool acknowledges_ = true;
  std::string last_;                          // for a client that did not get it
  bool owes_stop_ = false;                    // it has let the machine run
  bool described_ = false;                    // it has read the description
  bool tells_sw_ = false, tells_hw_ = false;  // it knows these reasons
  bool hold_interrupts_ = true;               // while it steps
  size_t thread_ = 0, run_thread_ = 0;        // vCPUs: of registers and memory, and of s
  size_t next_thread_ = 0;                    // of the list
  bool busy_ = false;
};

}  // namespace kite::gdb
