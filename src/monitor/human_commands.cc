#include "monitor/human_commands.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "monitor/balloon_commands.h"
#include "monitor/block_commands.h"
#include "monitor/debug_server.h"
#include "monitor/device_commands.h"
#include "monitor/dirty_rate_commands.h"
#include "monitor/display_commands.h"
#include "monitor/display_servers.h"
#include "monitor/export_commands.h"
#include "monitor/input_commands.h"
#include "monitor/inspect_commands.h"
#include "monitor/job_commands.h"
#include "monitor/memory_commands.h"
#include "monitor/migration_commands.h"
#include "monitor/net_commands.h"
#include "monitor/stats_commands.h"
#include "monitor/words.h"
#include "support/suggest.h"

namespace kite::monitor {

namespace {

using Context = MonitorContext;

struct HumanCommand {
  std::string_view name;
  std::string_view short_name;
  std::string_view help;
  std::string (*run)(Context& context, std::string_view rest);
};

std::string through_qmp(Context& context, std::string_view command) {
  const QmpReply reply = run_qmp_command(context, command, Json::object());
  return reply ? std::string{} : fmt::format("Error: {}\n", reply.error().description);
}

std::string info_status(Context& context, std::string_view) {
  const auto state = context.machine.state();
  const bool running = state == machine::RunState::kRunning;
  if (running) return "VM status: running\n";
  return fmt::format("VM status: paused{}\n",
                     state == machine::RunState::kPaused ? "" : fmt::format(" ({})", machine::run_state_name(state)));
}

std::string info_version(Context&, std::string_view) { return "Kite " KITE_VERSION "\n"; }

std::string info_memory_tree(Context& context, std::string_view) {
  return context.machine.memory().dump() + context.machine.ports().dump();
}

std::string info_chardev(Context& context, std::string_view) {
  std::string text;
  for (const Chardev* chardev : context.chardevs.all())
    text += fmt::format("{}: filename={}\n", chardev->id(), chardev->filename());
  return text;
}

std::string info_cpus(Context& context, std::string_view) {
  std::string text;
  for (size_t index = 0; index < context.machine.vcpu_count(); ++index)
    text +=
        fmt::format("{} CPU #{}: thread_id={}\n", index == 0 ? "*" : " ", index, context.machine.vcpu_thread_id(index));
  return text;
}

std::string info_registers(Context& context, std::string_view) {
  const bool was_running = context.machine.state() == machine::RunState::kRunning;
  context.machine.pause();
  std::string text;
  for (size_t index = 0; index < context.machine.vcpu_count(); ++index) {
    x86::ArchState state;
    context.machine.vcpu(index).get_state(state);
    static constexpr std::string_view kNames[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                                  "R8 ", "R9 ", "R10", "R11", "R12", "R13", "R14", "R15"};
    text += fmt::format("CPU#{}\n", index);
    for (size_t reg = 0; reg < 16; ++reg)
      text += fmt::format("{}={:016x}{}", kNames[reg], state.gpr[reg], reg % 4 == 3 ? "\n" : " ");
    text += fmt::format("RIP={:016x} RFL={:08x} CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x} EFER={:x}\n", state.rip,
                        state.rflags, state.cr0, state.cr2, state.cr3, state.cr4, state.efer);
    static constexpr std::string_view kSegments[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    for (size_t segment = 0; segment < 6; ++segment)
      text += fmt::format("{} ={:04x} {:016x} {:08x} {:05x}\n", kSegments[segment], state.seg[segment].selector,
                          state.seg[segment].base, state.seg[segment].limit, state.seg[segment].attributes);
  }
  if (was_running) (void)context.machine.resume();
  return text;
}

constexpr HumanCommand kInfo[] = {
    {"balloon", "", "show how much memory the guest has", info_balloon},
    {"block", "", "show the disks: [-n] [-v] [DEVICE]", info_block},
    {"block-jobs", "", "show the block jobs and how far they are", info_block_jobs},
    {"blockstats", "", "show what the disks did", info_blockstats},
    {"chardev", "", "show the character devices", info_chardev},
    {"cpus", "", "show the CPUs and their threads", info_cpus},
    {"dirty_rate", "", "show how fast the guest writes its memory, as calc_dirty_rate measured it",
     [](Context& context, std::string_view) { return info_dirty_rate(context.machine.dirty_rate()); }},
    {"memdev", "", "show the objects that are memory", info_memdev},
    {"mice", "", "show the mice and tablets, and which of them is used", info_mice},
    {"migrate", "", "show how far the machine that goes out has come", info_migrate},
    {"migrate_capabilities", "", "show what else is done with machines that go out", info_migrate_capabilities},
    {"migrate_parameters", "", "show what holds for machines that go out", info_migrate_parameters},
    {"mtree", "", "show the memory and port maps", info_memory_tree},
    {"network", "", "show the network cards and where their cables go", info_network},
    {"numa", "", "show the NUMA nodes", info_numa},
    {"pci", "", "show the PCI functions and what they were given", info_pci},
    {"qtree", "", "show the devices and the buses they are on", info_qtree},
    {"registers", "", "show the CPU registers", info_registers},
    {"snapshots", "", "show the machines that are kept in the images", info_snapshots},
    {"spice", "", "show the SPICE server and its clients", info_spice},
    {"stats", "", "show what is counted: [vm|vcpu] [NAME,...|*] [kvm|kite]",
     [](Context&, std::string_view rest) { return info_stats(metrics::Registry::process(), rest); }},
    {"status", "", "show whether the machine runs", info_status},
    {"usb", "", "show the USB devices", info_usb},
    {"usernet", "", "show the connections through the host", info_usernet},
    {"version", "", "show the version", info_version},
    {"vnc", "", "show the VNC server and its clients", info_vnc},
};

const HumanCommand* find(std::span<const HumanCommand> table, std::string_view name) {
  const auto found = std::find_if(table.begin(), table.end(), [&](const HumanCommand& command) {
    return command.name == name || (!command.short_name.empty() && command.short_name == name);
  });
  return found == table.end() ? nullptr : &*found;
}

std::string unknown(std::string_view what, std::span<const HumanCommand> table, std::string_view name) {
  std::vector<std::string_view> names;
  for (const HumanCommand& command : table) names.push_back(command.name);
  // Programs that send commands look for the first word.
  return fmt::format("Error: unknown command: '{}{}'{}\n", what, name, suggestion(name, names));
}

std::string info(Context& context, std::string_view rest) {
  const std::string_view topic = next_word(rest);
  if (topic.empty() || topic == "help") {
    std::string text;
    for (const HumanCommand& command : kInfo) text += fmt::format("info {:<12} -- {}\n", command.name, command.help);
    return text;
  }
  const HumanCommand* command = find(kInfo, topic);
  return command != nullptr ? command->run(context, rest) : unknown("info ", kInfo, topic);
}

// mce [-b] CPU BANK STATUS MCGSTATUS ADDR MISC
std::string mce(Context& context, std::string_view rest) {
  constexpr std::string_view kUsage = "usage: mce [-b] CPU BANK STATUS MCGSTATUS ADDR MISC\n";
  std::string_view word = next_word(rest);
  const bool broadcast = word == "-b";
  if (broadcast) word = next_word(rest);
  uint64_t values[6] = {};
  for (uint64_t& value : values) {
    const bool hex = word.starts_with("0x");
    const std::string_view digits = hex ? word.substr(2) : word;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
    if (error != std::errc{} || end != digits.data() + digits.size()) return std::string(kUsage);
    word = next_word(rest);
  }
  if (!word.empty()) return std::string(kUsage);
  const auto [cpu, bank, status, mcg_status, address, misc] = std::to_array(values);
  if (cpu >= context.machine.vcpu_count()) return fmt::format("there is no CPU {}\n", cpu);
  if ((status & mc_status::kValid) == 0) return "bit 63 of STATUS, which says that it is valid, must be set\n";
  const MachineCheck error{.bank = static_cast<uint32_t>(std::min<uint64_t>(bank, UINT32_MAX)),
                           .status = status,
                           .mcg_status = mcg_status,
                           .address = address,
                           .misc = misc};
  if (!context.machine.vcpu(cpu).post_machine_check(error))
    return fmt::format("CPU {} has no bank {}, or accelerator {} injects no machine checks\n", cpu, bank,
                       context.machine.accelerator().name());
  // [SDM 3B 16.10.4.1] The others are told that there is one somewhere.
  const MachineCheck elsewhere{.bank = 1, .status = mc_status::kValid | mc_status::kUncorrected, .mcg_status = 5};
  for (size_t other = 0; broadcast && other < context.machine.vcpu_count(); ++other)
    if (other != cpu) context.machine.vcpu(other).post_machine_check(elsewhere);
  return {};
}

// gdbserver [CHARDEV|none]
std::string gdbserver(Context& context, std::string_view rest) {
  const std::string_view device = next_word(rest);
  if (context.debugger == nullptr || !next_word(rest).empty()) return "usage: gdbserver [CHARDEV|none]\n";
  if (const auto done = context.debugger->serve(device); !done) return fmt::format("Error: {}\n", done.error().message);
  if (device == "none") return "Disabled gdbserver\n";
  return fmt::format("Waiting for gdb connection on device '{}'\n", device.empty() ? "tcp::1234" : device);
}

std::string help(Context& context, std::string_view rest);

constexpr HumanCommand kHumanCommands[] = {
    {"balloon", "", "say how much memory the guest should have: MEBIBYTES", human_balloon},
    {"block_job_cancel", "", "end a block job: [-f] JOB", human_job_cancel},
    {"block_job_complete", "", "let a block job that is ready do what it is for: JOB", human_job_complete},
    {"block_job_pause", "", "let a block job wait: JOB", human_job_pause},
    {"block_job_resume", "", "let it go on: JOB", human_job_resume},
    {"block_job_set_speed", "", "limit a block job: JOB SPEED (in MiB a second, or with a suffix)",
     human_job_set_speed},
    {"block_resize", "", "make a disk longer or shorter: DEVICE SIZE", human_block_resize},
    {"calc_dirty_rate", "", "measure how fast the guest writes its memory: [-b] SECONDS [SAMPLES]",
     [](Context& context, std::string_view rest) { return human_calc_dirty_rate(context.machine.dirty_rate(), rest); }},
    {"change", "",
     "put another medium in: DEVICE FILE [FORMAT [retain|read-only|read-write]]; or vnc password PASSWORD",
     [](Context& context, std::string_view rest) {
       std::string_view words = rest;
       return next_word(words) == "vnc" ? human_change_vnc(context, words) : human_change(context, rest);
     }},
    {"cont", "c", "let the machine go on",
     [](Context& context, std::string_view) { return through_qmp(context, "cont"); }},
    {"delvm", "", "delete a snapshot of the machine: NAME", human_delvm},
    {"device_add", "", "add a device: TYPE[,PROPERTY=VALUE]...", human_device_add},
    {"device_del", "", "take a device out: ID", human_device_del},
    {"drive_add", "", "add a drive for device_add: 0 if=none,id=ID,file=FILE[,OPTION=VALUE]...", human_drive_add},
    {"drive_backup", "", "copy a disk as it is now: [-n] [-f] [-c] DEVICE FILE [FORMAT]", human_drive_backup},
    {"drive_del", "", "take a drive out: ID", human_drive_del},
    {"eject", "", "take the medium out: [-f] DEVICE", human_eject},
    {"expire_password", "", "end a display server's password: vnc|spice now|never|+SECONDS|SECONDS",
     human_expire_password},
    {"gdbserver", "", "wait for a debugger, tcp::1234 unless told otherwise: [CHARDEV|none]", gdbserver},
    {"help", "?", "this list", help},
    {"hostfwd_add", "", "forward a port of the host's: [NETDEV] [tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT",
     human_hostfwd_add},
    {"hostfwd_remove", "", "forward it no longer: [NETDEV] [tcp|udp]:[HOSTADDR]:HOSTPORT", human_hostfwd_remove},
    {"info", "", "show something: 'info help' lists what", info},
    {"loadvm", "", "go back to a snapshot of the machine: NAME", human_loadvm},
    {"mce", "", "report a machine check: [-b] CPU BANK STATUS MCGSTATUS ADDR MISC", mce},
    {"memsave", "", "write memory as the first CPU sees it to a file: ADDRESS BYTES FILE", human_memsave},
    {"migrate", "", "send the machine: [-d] tcp:HOST:PORT|unix:PATH|exec:COMMAND|file:PATH|fd:N", human_migrate},
    {"migrate_cancel", "", "it stays here", human_migrate_cancel},
    {"migrate_continue", "", "go on with a machine that waits with its disks here: pre-switchover",
     human_migrate_continue},
    {"migrate_incoming", "", "wait for a machine, after -incoming defer: as migrate", human_migrate_incoming},
    {"migrate_set_capability", "", "events, dirty-bitmaps or pause-before-switchover: NAME on|off",
     human_migrate_set_capability},
    {"migrate_set_parameter", "", "set max-bandwidth (bytes a second) or downtime-limit (ms): NAME VALUE",
     human_migrate_set_parameter},
    {"mouse_button", "", "press mouse buttons: STATE (1 left, 2 right, 4 middle; 0 lets go)", human_mouse_button},
    {"mouse_move", "", "move the mouse: DX DY [DZ]", human_mouse_move},
    {"nbd_server_add", "", "give a disk to NBD clients: [-w] DEVICE [NAME]", human_nbd_server_add},
    {"nbd_server_remove", "", "no longer do: [-f] NAME", human_nbd_server_remove},
    {"nbd_server_start", "", "serve disks to NBD clients: [-a [-w]] HOST:PORT|unix:PATH", human_nbd_server_start},
    {"nbd_server_stop", "", "hang up all NBD clients, and serve no disks any more", human_nbd_server_stop},
    {"netdev_add", "", "add a network back end for device_add: TYPE,id=ID[,OPTION=VALUE]...", human_netdev_add},
    {"netdev_del", "", "take a network back end away: ID", human_netdev_del},
    {"nmi", "", "send a non-maskable interrupt to every CPU",
     [](Context& context, std::string_view) { return through_qmp(context, "inject-nmi"); }},
    {"pmemsave", "", "write memory as the board has it to a file: ADDRESS BYTES FILE", human_pmemsave},
    {"qemu-io", "", "read, write or hold up an image in use: DEVICE \"COMMAND\" (help lists commands)", human_disk_io},
    {"quit", "q", "end Kite", [](Context& context, std::string_view) { return through_qmp(context, "quit"); }},
    {"savevm", "", "keep the machine as it is now in its qcow2 images: [NAME]", human_savevm},
    {"screendump", "", "write the screen to a file: FILE [-f ppm|png]", human_screendump},
    {"mouse_set", "", "use this mouse or tablet: NUMBER, as info mice shows it", human_mouse_set},
    {"sendkey", "", "press keys together: KEY[-KEY]... [MILLISECONDS]", human_sendkey},
    {"set_link", "", "plug a network cable in or out: CARD|NETDEV on|off", human_set_link},
    {"set_password", "", "set the password of a display server: vnc|spice PASSWORD [keep|fail|disconnect]",
     human_set_password},
    {"snapshot_blkdev", "", "put a new image above a disk's: [-n] DEVICE FILE [FORMAT]", human_snapshot_blkdev},
    {"stop", "s", "stop the machine", [](Context& context, std::string_view) { return through_qmp(context, "stop"); }},
    {"system_powerdown", "", "press the power button",
     [](Context& context, std::string_view) { return through_qmp(context, "system_powerdown"); }},
    {"system_wakeup", "", "wake the machine up from suspend to RAM",
     [](Context& context, std::string_view) { return through_qmp(context, "system_wakeup"); }},
    {"system_reset", "", "reset the machine",
     [](Context& context, std::string_view) { return through_qmp(context, "system_reset"); }},
    {"x", "", "show memory as the first CPU sees it: [/COUNT[x|u|c][b|h|w|g]] ADDRESS|$REGISTER", human_x},
    {"xp", "", "show memory as the board has it, as x", human_xp},
};

std::string help(Context&, std::string_view) {
  std::string text;
  for (const HumanCommand& command : kHumanCommands) {
    const std::string names =
        command.short_name.empty() ? std::string(command.name) : fmt::format("{}|{}", command.name, command.short_name);
    text += fmt::format("{:<18} -- {}\n", names, command.help);
  }
  return text;
}

}  // namespace

std::string run_human_command(MonitorContext& context, std::string_view line) {
  const std::string_view whole = line;
  std::string_view name = next_word(line);
  if (name.empty()) return {};
  // "x/4xw 0" is "x /4xw 0".
  if (const size_t slash = name.find('/'); slash != name.npos && slash != 0) {
    name = name.substr(0, slash);
    line = whole.substr(whole.find('/'));
  }
  const HumanCommand* command = find(kHumanCommands, name);
  return command != nullptr ? command->run(context, line) : unknown("", kHumanCommands, name);
}

}  // namespace kite::monitor
