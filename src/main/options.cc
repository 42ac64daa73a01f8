#include "main/options.h"

#include <algorithm>

#include "entropy/entropy_registry.h"
#include "main/config_file.h"
#include "main/option_values.h"
#include "snapshot/channel.h"
#include "support/base64.h"
#include "support/log.h"
#include "support/suggest.h"
#include "tls/credentials_store.h"

namespace kite::main {

namespace {

using Context = OptionContext;
using Text = std::string_view;

Result<> set(std::string& target, Text value) {
  target = std::string(value);
  return {};
}
Result<> on(bool& target) {
  target = true;
  return {};
}

std::string log_help() {
  std::string text = "Items for -d (comma-separated):\n";
  for (const auto& item : log::categories()) text += fmt::format("  {:<14} {}\n", item.name, item.help);
  return text;
}

Result<> device(Context& context, Text text) {
  if (text == "help" || text == "?") return set(context.plan.text, context.types.list_help("device"));
  const size_t comma = text.find(',');
  if (comma != Text::npos && (text.substr(comma) == ",help" || text.substr(comma) == ",?")) {
    KITE_ASSIGN(context.plan.text, context.types.type_help(text.substr(0, comma)));
    return {};
  }
  context.plan.devices.emplace_back(text);
  return {};
}

Result<> add_secret(Context& context, const std::string& id, const PropertyMap& properties) {
  std::string data = properties.string("data");
  const std::string file = properties.string("file");
  if (id.empty() || data.empty() == file.empty())
    return fail("-object secret: give it an id and either data or file, as id=s0,file=password.txt");
  if (!file.empty()) {
    KITE_ASSIGN(data, read_config_file(file, "-object secret"));
  }
  if (properties.string("format") == "base64") {
    auto bytes = from_base64(data);
    if (!bytes) return fail("-object secret,id={}: it is not base64", id);
    data.assign(bytes->begin(), bytes->end());
  }
  if (!context.plan.secrets.emplace(id, std::move(data)).second)
    return fail("-object secret: the id '{}' is taken", id);
  return {};
}

Result<> add_memory(Context& context, const ObjectOptions& options, const PropertyMap& properties) {
  machine::MemoryBackend backend{.id = options.id,
                                 .bytes = properties.integer("size"),
                                 .path = properties.string("mem-path"),
                                 .share = properties.boolean("share"),
                                 .preallocate = properties.boolean("prealloc")};
  if (backend.id.empty() || backend.bytes == 0)
    return fail("-object {}: give it an id and a size, as id=mem0,size=1M", options.type);
  for (const auto& other : context.plan.machine.memory_backends)
    if (other.id == backend.id) return fail("-object {}: the id '{}' is taken", options.type, backend.id);
  context.plan.machine.memory_backends.push_back(std::move(backend));
  return {};
}

Result<> object(Context& context, Text text) {
  if (text == "help" || text == "?") return set(context.plan.text, context.types.list_help("object"));
  KITE_ASSIGN(const auto options, parse_object_options(text, "qom-type"));
  KITE_ASSIGN(const PropertyMap properties, context.types.resolve(options, "-object"));
  if (options.type == "secret") return add_secret(context, options.id, properties);
  if (entropy::EntropyRegistry::knows(options.type)) {
    context.plan.entropy.push_back({.type = options.type, .id = options.id, .properties = properties});
    return {};
  }
  if (tls::CredentialsStore::knows(options.type)) {
    context.plan.credentials.push_back({.type = options.type, .id = options.id, .properties = properties});
    return {};
  }
  if (context.types.is_a(options.type, "memory-backend")) return add_memory(context, options, properties);
  return fail("-object {}: this version of Kite has no back end of that kind", options.type);
}

Result<> usb_device(Context& context, Text name) {
  constexpr std::pair<Text, Text> kNames[] = {
      {"tablet", "usb-tablet"}, {"mouse", "usb-mouse"}, {"keyboard", "usb-kbd"}};
  std::vector<Text> known;
  for (const auto& [word, type] : kNames) {
    known.push_back(word);
    if (word != name) continue;
    context.plan.machine.usb = true;
    context.plan.devices.emplace_back(type);
    return {};
  }
  return fail("-usbdevice {}: this version of Kite has no such device{}; there are {}", name, suggestion(name, known),
              fmt::join(known, ", "));
}

// An option that is a disk at a fixed place.
template <size_t N>
struct Fixed {
  char text[N];
  constexpr Fixed(const char (&from)[N]) { std::copy_n(from, N, text); }
};
template <Fixed Option, Fixed Place>
Result<> disk(Context& context, Text file) {
  return apply_disk(context, Option.text, Place.text, file);
}

Result<> only_none(Text option, Text text) {
  if (text == "none") return {};
  return fail("-{} {}: this version of Kite has no such device; use -{} none", option, text, option);
}

Result<> monitor(Context& context, Text text, bool control, bool pretty) {
  context.plan.monitor_given = context.plan.monitor_given || !control;
  if (text == "none") return {};
  context.plan.monitors.push_back({.chardev = std::string(text), .legacy = true, .control = control, .pretty = pretty});
  return {};
}

Result<> apply_incoming(Context& context, Text text) {
  context.plan.machine.incoming = true;
  if (text == "defer") return {};
  context.plan.incoming = std::string(text);
  KITE_TRY(snapshot::parse_channel(text));
  return {};
}

// The last one counts.
Result<> apply_gdb(Context& context, Text text) {
  context.plan.gdb = std::string(text);
  return {};
}

Result<> log_items(Context& context, Text text) {
  if (text == "help") return set(context.plan.text, log_help());
  return set(context.plan.log_items, text);
}

constexpr Text kStandard = "Machine", kBoot = "Booting a kernel", kFirmware = "Firmware",
               kCharacter = "Consoles and monitors", kProcess = "Process", kDebug = "Looking inside", kDisks = "Disks",
               kNetwork = "Network", kDevices = "Devices";

constexpr OptionSpec kOptions[] = {
    {"machine",
     "[type=]NAME[,accel=A][,hpet=on|off][,acpi=on|off][,smm=on|off][,usb=on|off][,kernel-irqchip=on|off|split]"
     "[,memory-backend=ID][,pflash0=NODE][,pflash1=NODE][,dump-guest-core=on|off]",
     kStandard, "the board: pc, q35, none ('help' lists them)", apply_machine},
    {"M", "NAME", "", "", apply_machine},
    {"accel",
     "NAME[,kernel-irqchip=on|off|split][,dirty-ring-size=N][,translate=on|off][,tb-size=MIB]"
     "[,threshold=N][,perf-map=on|off][,profile=on|off]",
     kStandard, "what runs guest code: auto, kvm, jit (also tcg), qtest; kvm:jit or repeated: the first that works",
     apply_accel},
    {"enable-kvm", "", kStandard, "as -accel kvm", [](Context& context, Text) { return apply_accel(context, "kvm"); }},
    {"cpu", "MODEL[,+FLAG][,-FLAG][,enforce]", kStandard, "the CPU that the guest sees ('help' lists models and flags)",
     apply_cpu},
    {"smp", "[cpus=]N[,maxcpus=N][,sockets=N][,dies=N][,cores=N][,threads=N]", kStandard, "number of CPUs", apply_smp},
    {"m", "[size=]MEGS", kStandard, "guest memory: MiB, or with a suffix K, M, G (default 128)", apply_memory},
    {"numa",
     "node[,nodeid=N][,cpus=N[-N]]...,mem=SIZE|memdev=ID or dist,src=N,dst=N,val=N or "
     "cpu,node-id=N[,socket-id=N][,die-id=N][,core-id=N][,thread-id=N]",
     kStandard, "a NUMA node with its CPUs and memory; how far nodes are apart", apply_numa},
    {"rtc", "base=utc|localtime|DATE[,clock=host|vm][,driftfix=none|slew]", kStandard,
     "the clock that the guest's RTC shows", apply_rtc},
    {"uuid", "UUID", kStandard, "the machine's identity", apply_uuid},
    {"name", "[guest=]NAME[,debug-threads=on|off]", kStandard, "the machine's name, also shown by ps",
     [](Context& context, Text text) { return apply_name(context, text); }},

    {"kernel", "FILE", kBoot, "boot this kernel: Linux bzImage, ELF with a PVH note, multiboot 1",
     [](Context& context, Text text) { return set(context.plan.machine.kernel_path, text); }},
    {"initrd", "FILE", kBoot, "initial RAM disk; multiboot modules as 'FILE ARGS,FILE ARGS'",
     [](Context& context, Text text) { return set(context.plan.machine.initrd_path, text); }},
    {"append", "TEXT", kBoot, "the kernel's command line",
     [](Context& context, Text text) { return set(context.plan.machine.command_line, text); }},
    {"boot", "[order=]LETTERS[,once=LETTERS][,menu=on|off][,splash-time=MS][,reboot-timeout=MS][,strict=on|off]", kBoot,
     "what firmware is told about booting: a floppy, c hard disk, d CD-ROM, n network", apply_boot},
    {"no-acpi", "", "", "",
     [](Context& context, Text) {
       context.plan.machine.acpi = false;
       return Result<>{};
     }},
    {"no-hpet", "", "", "",
     [](Context& context, Text) {
       context.plan.machine.hpet = false;
       return Result<>{};
     }},
    {"no-fd-bootchk", "", kBoot, "firmware boots floppies without a signature too",
     [](Context& context, Text) {
       context.plan.machine.boot.check_floppies = false;
       return Result<>{};
     }},

    {"bios", "FILE", kFirmware, "start with this firmware; a name without a slash is searched (default bios-256k.bin)",
     [](Context& context, Text text) { return set(context.plan.machine.firmware.bios, text); }},
    {"L", "DIRECTORY", kFirmware, "search firmware there first",
     [](Context& context, Text text) -> Result<> {
       context.plan.machine.firmware.directories.emplace_back(text);
       return {};
     }},
    {"pflash", "FILE", kFirmware, "firmware in a flash chip; the first is the code, the second the variables",
     apply_pflash},
    {"fw_cfg", "[name=]NAME,file=FILE|string=TEXT", kFirmware, "give firmware and guest a file of their own",
     apply_fw_cfg},
    {"acpitable", "sig=XXXX,data=FILE[:FILE]... or file=FILE", kFirmware, "add an ACPI table", apply_acpi_table},
    {"smbios", "type=N[,FIELD=VALUE]... or file=FILE", kFirmware,
     "change what SMBIOS says: types 0, 1, 2, 3, 4, 11, 17", apply_smbios},

    {"drive",
     "[file=FILE][,if=ide|virtio|scsi|floppy|pflash|none][,format=F][,media=disk|cdrom][,id=ID][,index=N]"
     "[,cache=MODE][,readonly=on|off][,snapshot=on|off][,OPTION=VALUE]...",
     kDisks, "a disk: its image, and where the guest finds it; if=none is for -device drive=ID", apply_drive},
    {"blockdev", "driver=D,node-name=N[,OPTION=VALUE]... or JSON", kDisks,
     "a node of the block layer by itself, for -device drive=N", apply_blockdev},
    {"hda", "FILE", kDisks, "IDE disk 0; also -hdb, -hdc, -hdd, and a FILE without any option",
     disk<"hda", "index=0,media=disk">},
    {"hdb", "FILE", "", "", disk<"hdb", "index=1,media=disk">},
    {"hdc", "FILE", "", "", disk<"hdc", "index=2,media=disk">},
    {"hdd", "FILE", "", "", disk<"hdd", "index=3,media=disk">},
    {"cdrom", "FILE", kDisks, "CD-ROM image in the IDE drive 2", disk<"cdrom", "index=2,media=cdrom">},
    {"fda", "FILE", kDisks, "floppy image in drive 0; also -fdb", disk<"fda", "if=floppy,index=0">},
    {"fdb", "FILE", "", "", disk<"fdb", "if=floppy,index=1">},
    {"snapshot", "", kDisks, "write to temporary files instead of the images; they are lost at the end",
     [](Context& context, Text) { return on(context.plan.snapshot); }},

    {"nic", "user|tap|bridge|socket|stream|dgram|none[,model=virtio-net-pci|e1000][,mac=ADDRESS][,OPTION=VALUE]...",
     kNetwork, "a network card with a back end of its own; without this, -net or -redir, or -device, there is none",
     apply_nic},
    {"netdev",
     "user,id=ID[,net=ADDRESS/BITS][,host=ADDRESS][,dhcpstart=ADDRESS][,dns=ADDRESS][,hostname=NAME]"
     "[,restrict=on|off][,ipv6=on|off][,hostfwd=[tcp|udp]:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT]... or "
     "tap,id=ID[,ifname=NAME][,br=BRIDGE][,script=PATH|no][,downscript=PATH|no][,vnet_hdr=on|off][,sndbuf=SIZE][,fd=N] "
     "or bridge,id=ID[,br=BRIDGE][,helper=PATH] or "
     "socket,id=ID,listen=[HOST]:PORT|connect=HOST:PORT|mcast=GROUP:PORT[,localaddr=ADDRESS]|"
     "udp=HOST:PORT,localaddr=HOST:PORT|fd=N or stream,id=ID[,server=on],addr.type=inet|unix|fd,... or "
     "dgram,id=ID,local.type=inet|unix|fd,...,remote.type=inet|unix,..., or JSON",
     kNetwork, "where a card's cable ends, for -device virtio-net-pci,netdev=ID ('help' lists the kinds)",
     apply_netdev},
    {"net", "nic[,model=virtio][,macaddr=ADDRESS] or user|tap|bridge|socket|stream|dgram[,OPTION=VALUE]... or none",
     kNetwork, "a card, and where its cable ends, as two options", apply_net},
    {"redir", "[tcp|udp]:HOSTPORT:[GUESTADDR]:GUESTPORT", kNetwork,
     "forward a port of the host's to the guest; makes a card with -netdev user where there is none", apply_redir},

    {"device", "TYPE[,PROPERTY=VALUE]...", kDevices, "add a device ('help' lists them, 'TYPE,help' its properties)",
     device},
    {"usb", "", kDevices, "the board's own USB controllers; -device qemu-xhci adds a faster one",
     [](Context& context, Text) { return on(context.plan.machine.usb); }},
    {"usbdevice", "tablet|mouse|keyboard", kDevices, "as -usb with -device usb-tablet, usb-mouse or usb-kbd",
     usb_device},
    {"object", "TYPE[,PROPERTY=VALUE]...", kDevices, "add a back-end object ('help' lists them)", object},
    {"global", "TYPE.PROPERTY=VALUE", kDevices, "change a property's default",
     [](Context& context, Text text) -> Result<> {
       context.plan.globals.emplace_back(text);
       return {};
     }},
    {"nodefaults", "", kDevices, "only the devices that are asked for",
     [](Context& context, Text) {
       context.plan.defaults = false;
       return Result<>{};
     }},

    {"nographic", "", kCharacter, "serial port and monitor on this terminal; Ctrl-A h shows the keys",
     [](Context& context, Text) { return on(context.plan.nographic); }},
    {"serial", "CHARDEV", kCharacter,
     "connect the next serial port: stdio, mon:stdio, pty, file:PATH, unix:PATH, tcp:HOST:PORT, chardev:ID, null, none",
     [](Context& context, Text text) -> Result<> {
       context.plan.serials.emplace_back(text);
       return on(context.plan.serial_given);
     }},
    {"chardev", "BACKEND,id=ID[,OPTION=VALUE]...", kCharacter,
     "a byte stream for others to use: stdio, pty, file, null, socket; mux=on shares it",
     [](Context& context, Text text) -> Result<> {
       context.plan.chardevs.emplace_back(text);
       return {};
     }},
    {"monitor", "CHARDEV", kCharacter, "human monitor there",
     [](Context& context, Text text) { return monitor(context, text, false, false); }},
    {"qmp", "CHARDEV", kCharacter, "QMP monitor there",
     [](Context& context, Text text) { return monitor(context, text, true, false); }},
    {"qmp-pretty", "CHARDEV", kCharacter, "QMP monitor there, with indented replies",
     [](Context& context, Text text) { return monitor(context, text, true, true); }},
    {"mon", "chardev=ID[,mode=readline|control][,pretty=on|off]", kCharacter, "monitor on a -chardev", apply_mon},
    {"vga", "std|virtio|none", kCharacter, "the graphics card; std where there is a -vnc or -spice", apply_vga},
    {"vnc",
     "[HOST]:N|unix:PATH|none[,to=N][,password=on][,password-secret=ID][,tls-creds=ID][,share=POLICY][,audiodev=ID]",
     kCharacter, "show the screen to VNC clients, display N being port 5900 + N", apply_vnc},
    {"spice",
     "[port=N][,tls-port=N,x509-dir=PATH][,addr=HOST]|unix=on,addr=PATH[,disable-ticketing=on|,password-secret=ID]"
     "[,tls-channel=NAME][,plaintext-channel=NAME][,OPTION=VALUE]...",
     kCharacter, "show the screen to SPICE clients", apply_spice},
    {"display", "none|vnc=PLACE", kCharacter, "no display, or as -vnc PLACE", apply_display},
    {"audiodev", "none|spice,id=ID", kCharacter, "a sound back end; there are no sound cards yet that would use it",
     apply_audiodev},
    {"parallel", "none", "", "", [](Context&, Text text) { return only_none("parallel", text); }},

    {"S", "", kProcess, "do not start the CPUs; 'cont' in a monitor does",
     [](Context& context, Text) { return on(context.plan.machine.start_paused); }},
    {"incoming", "tcp:HOST:PORT|unix:PATH|exec:COMMAND|file:PATH|fd:N|defer", kProcess,
     "wait for a machine that 'migrate' sends, and go on with it; with defer, where 'migrate-incoming' says",
     apply_incoming},
    {"loadvm", "NAME", kProcess, "start with this snapshot of the machine",
     [](Context& context, Text text) { return set(context.plan.snapshot_name, text); }},
    {"no-reboot", "", kProcess, "end instead of rebooting",
     [](Context& context, Text) { return on(context.plan.machine.no_reboot); }},
    {"no-shutdown", "", kProcess, "stop, but do not end, when the guest powers off",
     [](Context& context, Text) { return on(context.plan.machine.no_shutdown); }},
    {"readconfig", "FILE", kProcess, "options from a file of [group] and key = \"value\" lines, in its place",
     [](Context&, Text) { return Result<>{}; }},  // taken apart before options are applied
    {"watchdog-action", "ACTION", kProcess,
     "when a watchdog expires: reset (the default), shutdown, poweroff, pause, inject-nmi, none",
     apply_watchdog_action},
    {"pidfile", "FILE", kProcess, "write the process id there",
     [](Context& context, Text text) { return set(context.plan.pid_file, text); }},
    {"daemonize", "", kProcess, "go to the background once the machine is ready",
     [](Context& context, Text) { return on(context.plan.daemonize); }},
    {"add-fd", "set=N,fd=N[,opaque=TEXT]", kProcess, "a descriptor that this process was started with: /dev/fdset/N",
     apply_add_fd},
    {"overcommit", "[mem-lock=on|off][,cpu-pm=off]", kProcess, "whether memory is locked in the host's RAM",
     apply_overcommit},
    {"sandbox",
     "on|off[,obsolete=allow|deny][,elevateprivileges=allow|deny|children][,spawn=allow|deny]"
     "[,resourcecontrol=allow|deny]",
     kProcess, "give up system calls that the machine does not need", apply_sandbox},
    {"msg", "timestamp=on|off", kProcess, "messages say when they were written", apply_msg},
    {"no-user-config", "", "", "", [](Context&, Text) { return Result<>{}; }},

    {"d", "ITEM,...", kDebug, "log these ('help' lists them)", log_items},
    {"D", "FILE", kDebug, "log to this file instead of stderr",
     [](Context& context, Text text) { return set(context.plan.log_file, text); }},
    {"gdb", "CHARDEV|none", kDebug, "wait for a debugger there: tcp:HOST:PORT, unix:PATH,server=on, stdio, chardev:ID",
     apply_gdb},
    {"s", "", kDebug, "as -gdb tcp::1234", [](Context& context, Text) { return apply_gdb(context, "tcp::1234"); }},
    {"qtest", "CHARDEV", kDebug, "serve the qtest protocol there",
     [](Context& context, Text text) -> Result<> {
       context.plan.qtest = std::string(text);
       return {};
     }},
    {"qtest-log", "FILE", kDebug, "write what qtest says and hears there",
     [](Context& context, Text text) -> Result<> {
       context.plan.qtest_log = std::string(text);
       return {};
     }},

    {"help", "", kDebug, "this text", [](Context& context, Text) { return set(context.plan.text, help_text()); }},
    {"h", "", "", "", [](Context& context, Text) { return set(context.plan.text, help_text()); }},
    {"version", "", kDebug, "the version",
     [](Context& context, Text) { return set(context.plan.text, version_text()); }},
};

constexpr MissingOption kMissing[] = {
    {"icount", "this version of Kite does not count guest time in instructions; leave -icount out"},
    {"tpmdev", "this version of Kite has no TPM; leave -tpmdev and its -device out"},
    {"fsdev", "this version of Kite shares no directories with guests; copy by network or on a disk"},
    {"virtfs", "this version of Kite shares no directories with guests; copy by network or on a disk"},
    {"soundhw", "this version of Kite has no sound cards; leave -soundhw out"},
    {"trace", "this version of Kite has no trace events; -d logs, and 'query-stats' counts"},
    {"plugin", "this version of Kite takes no plugins"},
    {"preconfig", "this version of Kite is configured by its command line alone; -S stops it before the guest runs"},
    {"runas", "start Kite as that user"},
    {"chroot", "start Kite inside; -sandbox takes rights away without it"},
    {"set", "give the property where its -device or -drive is"},
    {"writeconfig", "keep the command line; -readconfig reads what was written by hand"},
};

}  // namespace

std::span<const OptionSpec> options() { return kOptions; }
std::span<const MissingOption> missing_options() { return kMissing; }

}  // namespace kite::main
