#include "gdb/stub.h"

#include <utility>

namespace kite::gdb {

Stub::Stub(monitor::MonitorContext monitor, Chardev& chardev)
    : monitor_(monitor),
      machine_(monitor.machine),
      chardev_(chardev),
      registers_(machine_.cpu()),
      description_(registers_.description()),
      output_(chardev) {
  chardev_.set_client(this);
}

Stub::~Stub() {
  chardev_.set_client(nullptr);
  if (attached_) leave();
}

void Stub::event(ChardevEvent event) {
  if (event == ChardevEvent::kOpened && !attached_) attach();
  if (event == ChardevEvent::kClosed && attached_) leave();
}

void Stub::attach() {
  attached_ = acknowledges_ = hold_interrupts_ = true;
  owes_stop_ = described_ = tells_sw_ = tells_hw_ = false;
  thread_ = run_thread_ = next_thread_ = 0;
  view_.set_physical(false);
  reader_.restart();
  output_.clear();
  last_.clear();
  machine_.pause();
}

// What the client has set goes with it; whether the machine runs is as it was.
void Stub::leave() {
  attached_ = owes_stop_ = false;
  view_.set_physical(false);
  machine_.io().exclusive([this] {
    points_.remove_all(thread_);
    (void)ask_vcpus(std::vector<Action>(machine_.vcpu_count(), Action::kRun));
  });
}

void Stub::writable() {
  output_.flush();
  if (output_.size() == 0) chardev_.accept_input();
}

void Stub::received(std::span<const uint8_t> bytes) {
  for (const uint8_t byte : bytes)
    if (const auto item = reader_.next(byte)) handle(*item);
}

// [E.1] Without acknowledgements '+' and '-' mean nothing.
void Stub::handle(const PacketReader::Item& item) {
  using Kind = PacketReader::Kind;
  switch (item.kind) {
    case Kind::kAck: last_.clear(); return;
    case Kind::kNack:
      if (acknowledges_) output_.append(last_);
      break;
    case Kind::kInterrupt: interrupt(); break;
    case Kind::kDamaged:
      if (acknowledges_) output_.append("-");
      break;
    case Kind::kPacket:
      if (acknowledges_) output_.append("+");
      machine_.pause();
      busy_ = true;
      run(item.text);
      busy_ = false;
      break;
  }
  output_.flush();
}

void Stub::interrupt() {
  machine_.pause();
  machine_stopped();
}

void Stub::reply(std::string_view text) {
  last_ = frame(text);
  output_.append(last_);
}

void Stub::unknown(std::string_view) { reply(""); }

void Stub::run(std::string_view packet) {
  // Longer prefixes come before what they begin with.
  static constexpr Command kCommands[] = {
      {"!", &Stub::extended},
      {"?", &Stub::last_signal},
      {"c", &Stub::go_on},
      {"C", &Stub::go_on_with_signal},
      {"s", &Stub::step},
      {"S", &Stub::step_with_signal},
      {"vCont?", &Stub::actions_known},
      {"vCont;", &Stub::act},
      {"vKill", &Stub::kill_process},
      {"D", &Stub::detach},
      {"k", &Stub::kill},
      {"g", &Stub::read_registers},
      {"G", &Stub::write_registers},
      {"p", &Stub::read_register},
      {"P", &Stub::write_register},
      {"m", &Stub::read_memory},
      {"M", &Stub::write_memory},
      {"X", &Stub::write_binary},
      {"Z", &Stub::insert_point},
      {"z", &Stub::remove_point},
      {"H", &Stub::choose_thread},
      {"T", &Stub::thread_alive},
      {"qSupported", &Stub::supported},
      {"qXfer:features:read:", &Stub::description},
      {"qC", &Stub::current_thread},
      {"qfThreadInfo", &Stub::first_threads},
      {"qsThreadInfo", &Stub::more_threads},
      {"qThreadExtraInfo,", &Stub::thread_info},
      {"qAttached", &Stub::attached},
      {"qRcmd,", &Stub::monitor_command},
      {"QStartNoAckMode", &Stub::acknowledge_no_more},
      {"qqemu.PhyMemMode", &Stub::physical_mode},
      {"Qqemu.PhyMemMode:", &Stub::set_physical_mode},
      {"qqemu.sstepbits", &Stub::step_bits},
      {"qqemu.sstep", &Stub::step_mode},
      {"Qqemu.sstep=", &Stub::set_step_mode},
  };
  for (const Command& command : kCommands) {
    std::string_view rest = packet;
    if (take(rest, command.prefix)) return (this->*command.run)(rest);
  }
  unknown(packet);
}

}  // namespace kite::gdb
