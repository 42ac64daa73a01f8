#include "main/run.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdio>
#include <memory>
#include <optional>

#include "async/executor.h"
#include "chardev/chardev.h"
#include "chardev/socket_address.h"
#include "chardev/spice_chardev.h"
#include "devices/types.h"
#include "display/console.h"
#include "display/spice/spice_display.h"
#include "display/spice/spice_forker.h"
#include "display/vnc/vnc_server.h"
#include "entropy/entropy_registry.h"
#include "gdb/server.h"
#include "machine/drive_store.h"
#include "machine/machine.h"
#include "machine/object_types.h"
#include "machine/vm_snapshots.h"
#include "main/launch_plan.h"
#include "main/process.h"
#include "monitor/display_servers.h"
#include "monitor/human_session.h"
#include "monitor/migration_control.h"
#include "monitor/net_commands.h"
#include "monitor/qmp_session.h"
#include "monitor/qtest_server.h"
#include "net/net_registry.h"
#include "support/log.h"
#include "tls/credentials_store.h"

namespace kite::main {

namespace {

// For a display server, whose clients may be several, and may have several connections each.
Result<Fd> listen_for_clients(const SocketAddress& address) {
  constexpr int kBacklog = 16;
  KITE_ASSIGN(const std::vector<Endpoint> endpoints, resolve(address, true));
  KITE_ASSIGN(Fd listener, listen_on(address, endpoints));
  if (::listen(listener.get(), kBacklog) != 0) return fail("cannot listen: {}", errno_text(errno));
  return listener;
}

// Everything that lives as long as the machine, in the order in which it is made.
class Program {
 public:
  Result<int> run(const std::vector<std::string>& arguments);

 private:
  Result<> open_credentials();
  Result<> open_character_devices();
  Result<> open_serial_ports();
  Result<> open_networks();
  Result<> open_entropy();
  Result<> open_drives();
  void warn_of_what_is_unused() const;
  void end_with_signal(int signal);
  Result<> settle_on_host();
  Result<> open_vnc();
  Result<> open_spice();
  // What `property` of `option` names: an -object secret.
  Result<std::string> password_of(std::string_view option, std::string_view property, const std::string& secret) const;
  Result<> plug_spice_chardevs();
  Result<> open_monitors();
  void announce_clients();
  Result<> open_debugger(const monitor::MonitorContext& context);
  Result<> open_qtest();
  Result<> begin();
  Result<Chardev*> monitor_chardev(const MonitorPlan& plan, size_t index);

  TypeRegistry types_;
  LaunchPlan plan_;
  Daemon daemon_;
  PidFile pid_file_;
  display::SpiceForker spice_forker_;  // with a sandbox that allows no new processes
  HostClock screen_clock_{HostClock::Kind::kMonotonic};
  std::unique_ptr<Executor> executor_;
  Fd signals_;
  tls::CredentialsStore credentials_;
  std::unique_ptr<ChardevRegistry> chardevs_;
  std::unique_ptr<net::NetRegistry> nets_;
  std::unique_ptr<entropy::EntropyRegistry> entropy_;
  std::unique_ptr<machine::DriveStore> drives_;
  std::unique_ptr<display::Console> console_;
  std::unique_ptr<machine::Machine> machine_;
  std::unique_ptr<monitor::MigrationControl> migration_;
  std::unique_ptr<display::VncServer> vnc_;
  std::unique_ptr<display::SpiceDisplay> spice_;
  std::unique_ptr<gdb::Server> debugger_;
  std::vector<std::unique_ptr<monitor::QmpSession>> qmp_;
  std::vector<std::unique_ptr<monitor::HumanSession>> humans_;
  std::unique_ptr<monitor::QtestServer> qtest_;
  int status_ = 0;
};

void Program::end_with_signal(int signal) {
  if (machine_ == nullptr) {
    status_ = 128 + signal;
    executor_->stop();
    return;
  }
  machine_->request_shutdown(machine::Cause::kHostSignal);
}

// The terminal is for the first serial port and the monitor together unless the user said otherwise.
Result<> Program::open_serial_ports() {
  if (!plan_.serial_given && plan_.defaults) {
    const bool taken = plan_.gdb && plan_.gdb->starts_with("stdio");
    const bool terminal = plan_.nographic || (!plan_.display_none && !plan_.daemonize && !plan_.qtest && !taken);
    plan_.serials.emplace_back(!terminal ? "null" : plan_.monitor_given ? "stdio" : "mon:stdio");
  }
  for (size_t index = 0; index < plan_.serials.size(); ++index) {
    if (index >= 4) return fail("-serial {}: the board has four serial ports", plan_.serials[index]);
    KITE_ASSIGN(Chardev * port, chardevs_->add_legacy(fmt::format("serial{}", index), plan_.serials[index]));
    if (port != nullptr && plan_.serials[index].starts_with("mon:")) {
      KITE_ASSIGN(port, chardevs_->claim(port->id()));
      plan_.monitors.push_back({.chardev = fmt::format("serial{}", index)});
    }
    plan_.machine.serial_ports.push_back(port);
  }
  return {};
}

Result<> Program::open_credentials() {
  for (const ObjectPlan& plan : plan_.credentials) {
    std::string password;
    if (const std::string secret = plan.properties.string("passwordid"); !secret.empty()) {
      KITE_ASSIGN(password, password_of(fmt::format("-object {},id={}", plan.type, plan.id), "passwordid", secret));
    }
    KITE_TRY(credentials_.add(plan.type, plan.id, plan.properties, password));
  }
  return {};
}

Result<> Program::open_character_devices() {
  const auto quit = [this] {
    if (machine_ != nullptr) machine_->request_shutdown(machine::Cause::kHostUi);
  };
  chardevs_ = std::make_unique<ChardevRegistry>(*executor_, MuxHooks{.quit = quit}, &credentials_);
  for (const std::string& text : plan_.chardevs) KITE_TRY(chardevs_->add(text));
  for (machine::DeviceConfig& device : plan_.machine.devices) {
    const std::string id = device.properties.string("chardev");
    if (id.empty()) continue;
    KITE_ASSIGN(device.chardev, chardevs_->claim(id));
  }
  return open_serial_ports();
}

Result<> Program::open_networks() {
  nets_ = std::make_unique<net::NetRegistry>(*executor_);
  for (const NetdevPlan& plan : plan_.netdevs)
    if (auto added = nets_->add(plan.settings); !added) return fail("{}: {}", plan.option, added.error().message);
  return {};
}

Result<> Program::open_entropy() {
  entropy_ = std::make_unique<entropy::EntropyRegistry>(*executor_);
  for (const ObjectPlan& plan : plan_.entropy) KITE_TRY(entropy_->add(plan.type, plan.id, plan.properties));
  return {};
}

Result<> Program::open_drives() {
  KITE_ASSIGN(drives_, machine::DriveStore::create());
  if (plan_.machine.incoming) drives_->starts_inactive();
  for (block::BlockOptions& options : plan_.nodes) {
    const std::string name = options.find("node-name") == nullptr ? "" : *options.find("node-name");
    if (auto done = drives_->add_node(std::move(options)); !done)
      return fail("-blockdev {}: {}", name, done.error().message);
  }
  for (const machine::DriveSpec& spec : plan_.drives) {
    if (auto done = drives_->add_drive(spec); !done)
      return fail("-drive {}: {}", spec.has_image ? spec.request.filename : spec.id, done.error().message);
  }
  return {};
}

void Program::warn_of_what_is_unused() const {
  for (const auto& entry : drives_->entries())
    if (!entry->claimed && !entry->spec.is_default)
      log::warn("-drive id={}: no device uses it; add a -device with drive={}", entry->spec.id, entry->spec.id);
  for (const auto& backend : nets_->all())
    if (backend->client() == nullptr)
      log::warn("-netdev id={}: no card uses it; add -device virtio-net-pci,netdev={}", backend->id(), backend->id());
}

Result<Chardev*> Program::monitor_chardev(const MonitorPlan& plan, size_t index) {
  if (!plan.legacy) return chardevs_->claim(plan.chardev);
  return chardevs_->add_legacy(fmt::format("compat_monitor{}", index), plan.chardev);
}

// What holds for the whole process, before it has threads.
Result<> Program::settle_on_host() {
  if (plan_.lock_memory && ::mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
    return fail("-overcommit mem-lock=on: {}; raise the limit of locked memory (ulimit -l)", errno_text(errno));
  if (!plan_.sandbox) return {};
  if (plan_.spice && plan_.sandbox->spawn) {
    KITE_ASSIGN(spice_forker_, display::SpiceForker::start());
  }
  return enter_sandbox(*plan_.sandbox);
}

Result<> Program::open_vnc() {
  if (!plan_.vnc) return {};
  constexpr unsigned kFirstPort = 5900;
  VncPlan& plan = *plan_.vnc;
  Result<Fd> listener = fail("-vnc: nowhere to listen");
  for (unsigned number = plan.display; number <= plan.last_display; ++number) {
    if (!plan.address.is_unix()) plan.address.port = std::to_string(kFirstPort + number);
    listener = listen_for_clients(plan.address);
    if (listener) break;
  }
  if (!listener) return fail("-vnc: {}", listener.error().message);
  if (!plan.audio.empty() && !plan_.audio_backends.contains(plan.audio))
    return fail("-vnc: audiodev={}: there is no -audiodev with this id", plan.audio);
  const std::string& name = plan_.machine.name;
  display::VncServer::Config config{.screen = {.name = name.empty() ? "Kite" : fmt::format("Kite ({})", name),
                                               .password = plan.password,
                                               .share = plan.share}};
  if (!plan.credentials.empty()) {
    auto found = credentials_.find(plan.credentials, tls::Endpoint::kServer);
    if (!found) return fail("-vnc: {}", found.error().message);
    config.credentials = std::move(*found);
  }
  KITE_ASSIGN(vnc_, display::VncServer::create(*console_, *executor_, std::move(config), std::move(*listener)));
  if (plan.password_secret.empty()) return {};
  KITE_ASSIGN(const std::string password, password_of("-vnc", "password-secret", plan.password_secret));
  vnc_->set_password(password);
  return {};
}

Result<std::string> Program::password_of(std::string_view option, std::string_view property,
                                         const std::string& secret) const {
  const auto found = plan_.secrets.find(secret);
  if (found == plan_.secrets.end())
    return fail("{}: {}={}: there is no -object secret with this id", option, property, secret);
  return found->second;
}

Result<> Program::open_spice() {
  if (!plan_.spice) return {};
  SpicePlan& plan = *plan_.spice;
  plan.config.name = plan_.machine.name.empty() ? "Kite" : plan_.machine.name;
  display::SpiceDisplay::Listeners listeners;
  for (const auto& [address, listener] :
       {std::pair(&plan.address, &listeners.plain), std::pair(&plan.tls_address, &listeners.tls)}) {
    if (!*address) continue;
    auto opened = listen_for_clients(**address);
    if (!opened) return fail("-spice: {}", opened.error().message);
    *listener = std::move(*opened);
  }
  display::SpiceDisplay::Wiring wiring{.console = *console_, .executor = *executor_, .clock = screen_clock_};
  if (spice_forker_.started()) wiring.spawn = [this](const Fd& link) { return spice_forker_.spawn(link); };
  auto made = display::SpiceDisplay::create(std::move(wiring), plan.config, std::move(listeners));
  if (!made) return fail("-spice: {}", made.error().message);
  spice_ = std::move(*made);
  if (plan.password_secret.empty()) return {};
  KITE_ASSIGN(const std::string password, password_of("-spice", "password-secret", plan.password_secret));
  if (auto done = spice_->set_password(password, display::WhenConnected::kKeep); !done)
    return fail("-spice: password-secret={}: {}", plan.password_secret, done.error().message);
  return {};
}

Result<> Program::plug_spice_chardevs() {
  if (spice_ == nullptr) return chardevs_->set_spice(nullptr);
  const SpiceCarrier carrier{
      .add =
          [this](const std::string& subtype, const std::string& port_name, std::function<void(Fd)> connected) {
            return spice_->add_device(subtype, port_name, std::move(connected));
          },
      .set_open = [this](size_t number, bool open,
                         Fd socket) { spice_->set_device_open(number, open, std::move(socket)); }};
  return chardevs_->set_spice(&carrier);
}

Result<> Program::open_monitors() {
  migration_ = std::make_unique<monitor::MigrationControl>(
      *machine_,
      [this](const machine::MachineEvent& event) {
        for (auto& session : qmp_) session->announce(event);
      },
      [this](const Error& error) {
        log::error("-incoming: {}", error.message);
        machine_->request_exit(1);
      });
  monitor::MonitorContext context{.machine = *machine_,
                                  .chardevs = *chardevs_,
                                  .vnc = vnc_.get(),
                                  .spice = spice_.get(),
                                  .migration = migration_.get(),
                                  .command_line = command_line_options};
  KITE_TRY(open_debugger(context));
  context.debugger = debugger_.get();
  for (size_t index = 0; index < plan_.monitors.size(); ++index) {
    const MonitorPlan& plan = plan_.monitors[index];
    KITE_ASSIGN(Chardev * chardev, monitor_chardev(plan, index));
    if (chardev == nullptr) continue;
    if (plan.control)
      qmp_.push_back(std::make_unique<monitor::QmpSession>(context, *chardev, plan.pretty));
    else
      humans_.push_back(std::make_unique<monitor::HumanSession>(context, *chardev));
  }
  machine_->add_event_listener([this](const machine::MachineEvent& event) {
    for (auto& session : qmp_) session->announce(event);
  });
  announce_clients();
  return {};
}

void Program::announce_clients() {
  const auto announce = [this](const auto& event) {
    for (auto& session : qmp_) session->announce(event.name, event.data);
  };
  nets_->on_stream_change([announce](const net::StreamBackend& backend) { announce(monitor::stream_event(backend)); });
  if (vnc_ != nullptr)
    vnc_->on_event([this, announce](display::ClientEvent event, const display::VncServer::Client& client) {
      announce(monitor::vnc_event(*vnc_, event, client));
    });
  if (spice_ != nullptr)
    spice_->on_event([this, announce](display::ClientEvent event, const display::SpiceChannel& channel) {
      announce(monitor::spice_event(*spice_, event, channel));
    });
}

Result<> Program::open_debugger(const monitor::MonitorContext& context) {
  debugger_ = std::make_unique<gdb::Server>(context);
  if (!plan_.gdb) return {};
  if (auto served = debugger_->serve(*plan_.gdb); !served)
    return fail("-gdb {}: {}", *plan_.gdb, served.error().message);
  return {};
}

Result<> Program::open_qtest() {
  if (!plan_.qtest) return {};
  KITE_ASSIGN(Chardev * chardev, chardevs_->add_legacy("qtest", *plan_.qtest));
  if (chardev == nullptr) return fail("-qtest {}: it needs a character device, as unix:PATH", *plan_.qtest);
  qtest_ = std::make_unique<monitor::QtestServer>(*machine_, *chardev);
  if (plan_.qtest_log && *plan_.qtest_log != "/dev/null") return qtest_->set_log(*plan_.qtest_log);
  return {};
}

Result<> Program::begin() {
  if (!plan_.snapshot_name.empty() && plan_.machine.incoming)
    return fail("-loadvm and -incoming are two ways to begin; leave one out");
  KITE_TRY(machine_->start());
  if (!plan_.snapshot_name.empty()) {
    if (auto loaded = machine::load_vm(*machine_, plan_.snapshot_name); !loaded)
      return fail("-loadvm {}: {}", plan_.snapshot_name, loaded.error().message);
    return plan_.machine.start_paused ? Result<>{} : machine_->resume();
  }
  if (plan_.incoming.empty()) return {};
  if (auto begun = migration_->receive(plan_.incoming, {}); !begun)
    return fail("-incoming {}: {}", plan_.incoming, begun.error().message);
  return {};
}

Result<int> Program::run(const std::vector<std::string>& arguments) {
  devices::register_device_types(types_);
  tls::register_types(types_);
  machine::register_machine_types(types_);
  KITE_ASSIGN(plan_, plan_launch(arguments, types_));
  if (!plan_.text.empty()) {
    std::fwrite(plan_.text.data(), 1, plan_.text.size(), stdout);
    return 0;
  }
  KITE_TRY(resolve_network(plan_));
  KITE_TRY(resolve_devices(plan_, types_));
  KITE_TRY(resolve_flash(plan_));
  KITE_TRY(resolve_drives(plan_));
  log::set_timestamps(plan_.timestamps);
  if (!plan_.log_file.empty()) KITE_TRY(log::set_file(plan_.log_file));
  if (!plan_.log_items.empty()) KITE_TRY(log::enable(plan_.log_items));
  set_process_name(plan_.machine.name);
  KITE_ASSIGN(daemon_, Daemon::start(plan_.daemonize));
  if (!plan_.pid_file.empty()) {
    KITE_ASSIGN(pid_file_, PidFile::create(plan_.pid_file));
  }
  KITE_TRY(settle_on_host());

  KITE_ASSIGN(executor_, Executor::create("kite"));
  KITE_ASSIGN(signals_, watch_signals(*executor_, [this](int signal) { end_with_signal(signal); }));
  KITE_TRY(open_credentials());
  KITE_TRY(open_character_devices());
  KITE_TRY(open_networks());
  KITE_TRY(open_entropy());
  KITE_TRY(open_drives());
  executor_->attach(screen_clock_);
  console_ = std::make_unique<display::Console>(screen_clock_);
  machine::MachineConfig config = plan_.machine;
  config.start_paused |= !plan_.snapshot_name.empty();  // until it is loaded
  KITE_ASSIGN(machine_, machine::Machine::create(config, {.executor = *executor_,
                                                          .types = types_,
                                                          .exit =
                                                              [this](int status) {
                                                                status_ = status;
                                                                executor_->stop();
                                                              },
                                                          .drives = drives_.get(),
                                                          .nets = nets_.get(),
                                                          .console = console_.get(),
                                                          .chardevs = chardevs_.get(),
                                                          .entropy = entropy_.get()}));
  warn_of_what_is_unused();
  KITE_TRY(open_qtest());  // its client waits for it before it listens for the monitor
  KITE_TRY(open_vnc());
  KITE_TRY(open_spice());
  KITE_TRY(plug_spice_chardevs());
  KITE_TRY(open_monitors());
  KITE_TRY(chardevs_->wait_for_peers());
  KITE_TRY(begin());
  KITE_TRY(daemon_.ready());
  executor_->run();
  debugger_->machine_ended(status_);
  chardevs_->flush_all();
  return status_;
}

}  // namespace

int run(const std::vector<std::string>& arguments) {
  Program program;
  const Result<int> status = program.run(arguments);
  restore_terminal();
  if (status) return *status;
  log::error("{}", status.error().message);
  return 1;
}

}  // namespace kite::main
