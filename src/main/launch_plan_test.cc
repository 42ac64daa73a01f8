#include "main/launch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "devices/types.h"
#include "main/options.h"
#include "tls/credentials_store.h"

namespace kite::main {
namespace {

class LaunchPlanTest : public ::testing::Test {
 protected:
  LaunchPlanTest() {
    devices::register_device_types(types_);
    tls::register_types(types_);
  }
  LaunchPlan plan(const std::vector<std::string>& words) {
    auto made = plan_launch(words, types_);
    EXPECT_TRUE(made) << made.error().message;
    return made ? std::move(*made) : LaunchPlan{};
  }
  std::string refusal(const std::vector<std::string>& words) {
    auto made = plan_launch(words, types_);
    EXPECT_FALSE(made);
    return made ? std::string{} : made.error().message;
  }
  TypeRegistry types_;
};

TEST_F(LaunchPlanTest, DefaultsAreThoseOfTheHelpText) {
  const LaunchPlan made = plan({});
  EXPECT_EQ(made.machine.board, "pc");
  EXPECT_EQ(made.machine.ram_bytes, 128ull << 20);
  EXPECT_EQ(made.machine.cpu_count, 1u);
  EXPECT_EQ(made.machine.accelerators, std::vector<std::string>{"auto"});
}

TEST_F(LaunchPlanTest, TheDebuggersDeviceIsTheLastThatIsNamed) {
  EXPECT_EQ(plan({}).gdb, std::nullopt);
  EXPECT_EQ(plan({"-s"}).gdb, "tcp::1234");
  EXPECT_EQ(plan({"-s", "-gdb", "unix:x,server=on"}).gdb, "unix:x,server=on");
  EXPECT_EQ(plan({"-gdb", "stdio", "-gdb", "none"}).gdb, "none");
}

TEST_F(LaunchPlanTest, MemoryTakesSuffixes) {
  EXPECT_EQ(plan({"-m", "64"}).machine.ram_bytes, 64ull << 20);
  EXPECT_EQ(plan({"-m", "2G"}).machine.ram_bytes, 2ull << 30);
  EXPECT_EQ(plan({"-m", "size=1536M"}).machine.ram_bytes, 1536ull << 20);
}

TEST_F(LaunchPlanTest, UsbComesInThreeSpellings) {
  EXPECT_FALSE(plan({}).machine.usb);
  EXPECT_TRUE(plan({"-usb"}).machine.usb);
  EXPECT_FALSE(plan({"-usb", "-M", "pc,usb=off"}).machine.usb);
  const LaunchPlan made = plan({"-usbdevice", "tablet"});
  EXPECT_TRUE(made.machine.usb);
  EXPECT_EQ(made.devices, std::vector<std::string>{"usb-tablet"});
  EXPECT_NE(refusal({"-usbdevice", "tablett"}).find("tablet"), std::string::npos);
  EXPECT_NE(refusal({"-M", "none", "-usb"}).find("no place"), std::string::npos);
}

TEST_F(LaunchPlanTest, ADisplayBringsItsCard) {
  const auto cards = [&](const std::vector<std::string>& words) {
    LaunchPlan made = plan(words);
    EXPECT_TRUE(resolve_devices(made, types_));
    return std::ranges::count(made.machine.devices, "VGA", &machine::DeviceConfig::type);
  };
  EXPECT_EQ(cards({}), 0);
  EXPECT_EQ(cards({"-display", "none"}), 0);
  EXPECT_EQ(cards({"-nographic", "-vga", "std"}), 1);
  EXPECT_EQ(cards({"-vnc", ":0"}), 1);
  EXPECT_EQ(cards({"-display", "vnc=:0"}), 1);
  EXPECT_EQ(cards({"-spice", "port=1"}), 1);
  EXPECT_EQ(cards({"-vnc", ":0", "-vga", "none"}), 0);
  EXPECT_EQ(cards({"-vnc", ":0", "-nodefaults"}), 0);
  EXPECT_EQ(cards({"-vnc", ":0", "-device", "VGA,vgamem_mb=8"}), 1);
  EXPECT_EQ(cards({"-vnc", ":0", "-vnc", "none"}), 0);
  for (const char* card : {"virtio-vga", "virtio-gpu-pci,xres=800", "driver=virtio-gpu"})
    EXPECT_EQ(cards({"-vnc", ":0", "-device", card}), 0) << card;
  LaunchPlan made = plan({"-vga", "virtio"});
  EXPECT_TRUE(resolve_devices(made, types_));
  EXPECT_EQ(std::ranges::count(made.machine.devices, "virtio-vga", &machine::DeviceConfig::type), 1);
}

TEST_F(LaunchPlanTest, UsbRedirectionIsRefusedByName) {
  LaunchPlan made = plan({"-device", "usb-redir,chardev=c0,id=redir0"});
  const auto refused = resolve_devices(made, types_);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("usb-storage"), std::string::npos) << refused.error().message;
}

TEST_F(LaunchPlanTest, TakesWhatLibvirtWrites) {
  const LaunchPlan made = plan({"-name",
                                "guest=d1,debug-threads=on",
                                "-S",
                                "-object",
                                R"({"qom-type":"secret","id":"s0","data":"aGk=","format":"base64"})",
                                "-machine",
                                "pc-i440fx-7.2,usb=off,vmport=off,dump-guest-core=off,memory-backend=pc.ram",
                                "-accel",
                                "tcg",
                                "-cpu",
                                "qemu64,hypervisor=on,lahf-lm=on",
                                "-m",
                                "size=262144k",
                                "-object",
                                R"({"qom-type":"memory-backend-ram","id":"pc.ram","size":268435456})",
                                "-overcommit",
                                "mem-lock=off",
                                "-smp",
                                "2,sockets=1,dies=1,cores=2,threads=1",
                                "-no-user-config",
                                "-nodefaults",
                                "-rtc",
                                "base=utc,driftfix=slew",
                                "-no-hpet",
                                "-no-shutdown",
                                "-boot",
                                "strict=on",
                                "-audiodev",
                                R"({"id":"audio1","driver":"none"})",
                                "-vnc",
                                "127.0.0.1:0,audiodev=audio1",
                                "-sandbox",
                                "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
                                "-msg",
                                "timestamp=on"});
  EXPECT_EQ(made.machine.board, "pc-i440fx-7.2");
  EXPECT_EQ(made.secrets.at("s0"), "hi");
  EXPECT_EQ(made.machine.main_memory, "pc.ram");
  EXPECT_EQ(made.machine.memory_backends.at(0).bytes, made.machine.ram_bytes);
  EXPECT_FALSE(made.machine.dump_guest_core);
  EXPECT_FALSE(made.machine.hpet);
  EXPECT_TRUE(made.machine.rtc.replay_missed);
  EXPECT_TRUE(made.audio_backends.contains(made.vnc->audio));
  ASSERT_TRUE(made.sandbox);
  EXPECT_TRUE(made.sandbox->spawn && made.sandbox->resource_control && made.sandbox->elevate_privileges);
  EXPECT_TRUE(made.timestamps);
}

TEST_F(LaunchPlanTest, PartsThatAreNotThereAreRefusedByName) {
  EXPECT_NE(refusal({"-overcommit", "cpu-pm=on"}).find("cpu-pm"), std::string::npos);
  EXPECT_NE(refusal({"-audiodev", "alsa,id=a"}).find("alsa"), std::string::npos);
  EXPECT_NE(refusal({"-sandbox", "on,spawn=maybe"}).find("maybe"), std::string::npos);
  EXPECT_NE(refusal({"-add-fd", "set=1,fd=999999"}).find("999999"), std::string::npos);
  EXPECT_NE(refusal({"-object", "memory-backend-file,id=m,size=1M"}).find("mem-path"), std::string::npos);
}

TEST_F(LaunchPlanTest, NodesBecomeFlash) {
  LaunchPlan made =
      plan({"-machine", "q35,pflash0=fw-format,pflash1=vars", "-blockdev",
            R"({"driver":"file","filename":"/code.fd","node-name":"fw-storage","auto-read-only":true})", "-blockdev",
            R"({"node-name":"fw-format","read-only":true,"driver":"raw","file":"fw-storage"})", "-blockdev",
            "driver=raw,node-name=vars,file.driver=file,file.filename=/vars.fd", "-blockdev",
            "driver=null-co,node-name=other"});
  ASSERT_TRUE(resolve_flash(made));
  const auto& chips = made.machine.firmware.flash;
  ASSERT_TRUE(chips[0] && chips[1]);
  EXPECT_EQ(chips[0]->path, "/code.fd");
  EXPECT_TRUE(chips[0]->read_only);
  EXPECT_EQ(chips[1]->path, "/vars.fd");
  EXPECT_FALSE(chips[1]->read_only);
  EXPECT_EQ(made.nodes.size(), 1u);

  LaunchPlan other = plan({"-machine", "q35,pflash0=other", "-blockdev", "driver=null-co,node-name=other"});
  EXPECT_FALSE(resolve_flash(other));
}

TEST_F(LaunchPlanTest, OptionsTellWhatTheyTake) {
  const auto list = command_line_options();
  const auto takes = [&](std::string_view option, std::string_view parameter) {
    const auto at = std::ranges::find(list, option, &monitor::CommandLineOption::name);
    return at != list.end() && std::ranges::find(at->parameters, parameter) != at->parameters.end();
  };
  EXPECT_TRUE(takes("sandbox", "elevateprivileges"));
  EXPECT_TRUE(takes("msg", "timestamp"));
  EXPECT_TRUE(takes("smp-opts", "dies"));
  EXPECT_TRUE(takes("chardev", "id"));
  EXPECT_FALSE(takes("spice", "gl"));
}

TEST_F(LaunchPlanTest, SpicePlaces) {
  const SpicePlan tcp = *plan({"-spice", "port=5930,addr=127.0.0.1,disable-ticketing=on,seamless-migration=on"}).spice;
  EXPECT_EQ(tcp.address->host + " " + tcp.address->port, "127.0.0.1 5930");
  EXPECT_FALSE(tcp.config.ticketing);
  EXPECT_EQ(tcp.config.settings.size(), 1U);
  EXPECT_EQ(plan({"-spice", "unix=on,addr=s.sock"}).spice->address->path, "s.sock");
  EXPECT_NE(refusal({"-spice", "addr=::1"}).find("port"), std::string::npos);
  EXPECT_NE(refusal({"-spice", "port=70000"}).find("70000"), std::string::npos);
  EXPECT_NE(refusal({"-spice", "port=1,image-compresion=off"}).find("image-compression"), std::string::npos);
}

TEST_F(LaunchPlanTest, VncPlaces) {
  const VncPlan range = *plan({"-vnc", "127.0.0.1:3,to=9,share=ignore"}).vnc;
  EXPECT_EQ(range.address.host, "127.0.0.1");
  EXPECT_EQ(range.display, 3u);
  EXPECT_EQ(range.last_display, 9u);
  EXPECT_EQ(plan({"-vnc", "[::1]:0"}).vnc->address.host, "::1");
  EXPECT_EQ(plan({"-vnc", "unix:a.sock,password=on"}).vnc->address.path, "a.sock");
  EXPECT_NE(refusal({"-vnc", ":5,to=4"}).find("to=4"), std::string::npos);
  EXPECT_NE(refusal({"-vnc", ":70000"}).find("70000"), std::string::npos);
}

TEST_F(LaunchPlanTest, SourcesOfRandomNumbersAreObjects) {
  const LaunchPlan made =
      plan({"-object", "rng-builtin,id=a", "-object", R"({"qom-type":"rng-random","id":"b","filename":"/dev/random"})",
            "-object", "rng-random,id=c"});
  ASSERT_EQ(made.entropy.size(), 3U);
  EXPECT_EQ(made.entropy[0].type, "rng-builtin");
  EXPECT_EQ(made.entropy[1].properties.string("filename"), "/dev/random");
  EXPECT_EQ(made.entropy[2].properties.string("filename"), "/dev/urandom");
}

TEST_F(LaunchPlanTest, SpiceTakesTls) {
  const SpicePlan made = *plan({"-spice",
                                "tls-port=5931,x509-dir=/pki,x509-key-file=/k.pem,tls-channel=main,"
                                "plaintext-channel=display"})
                              .spice;
  EXPECT_FALSE(made.address);
  EXPECT_EQ(made.tls_address->port, "5931");
  EXPECT_EQ(made.config.tls->authorities, "/pki/ca-cert.pem");
  EXPECT_EQ(made.config.tls->key, "/k.pem");
  ASSERT_EQ(made.config.channel_rules.size(), 2U);
  EXPECT_TRUE(made.config.channel_rules[0].tls);
  EXPECT_EQ(made.config.channel_rules[1].channel, "display");
  EXPECT_FALSE(plan({"-spice", "port=1"}).spice->config.tls);
  EXPECT_NE(refusal({"-spice", "port=1,x509-dir=/pki"}).find("tls-port="), std::string::npos);
  EXPECT_NE(refusal({"-spice", "port=1,tls-chanel=main"}).find("tls-channel"), std::string::npos);
}

TEST_F(LaunchPlanTest, CredentialsOfTlsAreObjects) {
  const LaunchPlan made = plan(
      {"-object", R"({"qom-type":"tls-creds-x509","id":"t0","dir":"/pki","endpoint":"server","verify-peer":false})",
       "-object", "tls-creds-anon,id=t1", "-vnc", ":0,tls-creds=t0"});
  ASSERT_EQ(made.credentials.size(), 2U);
  EXPECT_EQ(made.credentials[0].properties.string("dir"), "/pki");
  EXPECT_FALSE(made.credentials[0].properties.boolean("verify-peer"));
  EXPECT_EQ(made.credentials[1].properties.string("endpoint"), "client");
  EXPECT_EQ(made.vnc->credentials, "t0");
  EXPECT_NE(refusal({"-vnc", ":0,tls-authz=a"}).find("tls-authz"), std::string::npos);
}

TEST_F(LaunchPlanTest, SmpTopologyMultiplies) {
  const LaunchPlan made = plan({"-smp", "sockets=2,cores=2,threads=2"});
  EXPECT_EQ(made.machine.cpu_count, 8u);
  EXPECT_EQ(plan({"-smp", "2,maxcpus=4"}).machine.max_cpus, 4u);
  EXPECT_NE(refusal({"-smp", "4,sockets=3,cores=1,threads=1"}).find("maxcpus"), std::string::npos);
}

TEST_F(LaunchPlanTest, SmpFillsInWhatIsNotGiven) {
  const auto counts = [this](const char* text) {
    const x86::CpuTopology made = plan({"-smp", text}).machine.topology;
    return std::vector<uint32_t>{made.sockets, made.dies, made.cores, made.threads};
  };
  using Counts = std::vector<uint32_t>;
  EXPECT_EQ(counts("4"), (Counts{1, 1, 4, 1}));
  EXPECT_EQ(counts("4,sockets=2"), (Counts{2, 1, 2, 1}));
  EXPECT_EQ(counts("4,cores=2"), (Counts{2, 1, 2, 1}));
  EXPECT_EQ(counts("8,sockets=2,cores=2"), (Counts{2, 1, 2, 2}));
  EXPECT_EQ(counts("2,maxcpus=8,threads=2,dies=2"), (Counts{1, 2, 2, 2}));
  EXPECT_EQ(counts("threads=3"), (Counts{1, 1, 1, 3}));
  EXPECT_NE(refusal({"-smp", "6,cores=4"}).find("1 x 1 x 4 x 1"), std::string::npos);
  EXPECT_NE(refusal({"-smp", "4,maxcpus=2"}).find("maxcpus=2"), std::string::npos);
  EXPECT_NE(refusal({"-smp", "sockets=200,cores=200"}).find("40000"), std::string::npos);
}

TEST_F(LaunchPlanTest, NumaHasThreeForms) {
  const machine::NumaConfig numa =
      plan({"-numa", "node,cpus=0-1,cpus=4,mem=64", "-numa", "node,nodeid=3,memdev=m", "-numa",
            "dist,src=0,dst=3,val=0x20", "-numa", "cpu,node-id=3,socket-id=1,thread-id=0"})
          .machine.numa;
  ASSERT_EQ(numa.nodes.size(), 2u);
  EXPECT_EQ(numa.nodes.at(0).cpus, (std::vector<std::pair<uint32_t, uint32_t>>{{0, 1}, {4, 4}}));
  EXPECT_EQ(numa.nodes.at(0).bytes, 64u << 20);
  EXPECT_EQ(numa.nodes.at(3).memory, "m");
  EXPECT_EQ(numa.distances.at(0).value, 32);
  EXPECT_EQ(numa.cpus.at(0).socket, 1u);
  EXPECT_FALSE(numa.cpus.at(0).core.has_value());
  EXPECT_NE(refusal({"-numa", "node,cpu=0"}).find("cpus"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "node,cpus=3-1"}).find("3-1"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "node,nodeid=128"}).find("127"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "node", "-numa", "node,nodeid=0"}).find("already"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "dist,src=0,dst=1"}).find("val"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "dist,src=0,dst=1,val=256"}).find("255"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "cpu,socket-id=1"}).find("node-id"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "hmat-lb,x=1"}).find("HMAT"), std::string::npos);
  EXPECT_NE(refusal({"-numa", "mode"}).find("node"), std::string::npos);
}

TEST_F(LaunchPlanTest, AcceleratorsAddUpInOrder) {
  const auto made = plan({"-accel", "kvm", "-accel", "tcg"});
  EXPECT_EQ(made.machine.accelerators, (std::vector<std::string>{"kvm", "tcg"}));
  EXPECT_EQ(plan({"-machine", "pc,accel=kvm:tcg"}).machine.accelerators, (std::vector<std::string>{"kvm", "tcg"}));
}

TEST_F(LaunchPlanTest, AcceleratorsSeparatedByColonsAreAList) {
  EXPECT_EQ(plan({"-accel", "kvm:jit"}).machine.accelerators, (std::vector<std::string>{"kvm", "jit"}));
  EXPECT_EQ(plan({"-enable-kvm", "-accel", "kvm"}).machine.accelerators, std::vector<std::string>{"kvm"});
}

TEST_F(LaunchPlanTest, KvmTakesItsSettings) {
  using Irqchip = machine::KvmConfig::Irqchip;
  EXPECT_EQ(plan({"-accel", "kvm,kernel-irqchip=split"}).machine.kvm.kernel_irqchip, Irqchip::kSplit);
  EXPECT_EQ(plan({"-machine", "pc,accel=kvm,kernel-irqchip=off"}).machine.kvm.kernel_irqchip, Irqchip::kOff);
  EXPECT_EQ(plan({"-accel", "kvm,dirty-ring-size=4096"}).machine.kvm.dirty_ring_entries, 4096u);
  EXPECT_EQ(plan({"-accel", "kvm"}).machine.kvm.kernel_irqchip, Irqchip::kDefault);
}

TEST_F(LaunchPlanTest, AcceleratorSettingsAreRefusedByName) {
  EXPECT_NE(refusal({"-accel", "jit,kernel-irqchip=on"}).find("setting of kvm"), std::string::npos);
  EXPECT_NE(refusal({"-accel", "kvm,kernel-irqchip=half"}).find("split"), std::string::npos);
  EXPECT_NE(refusal({"-accel", "kvm,dirty-ring-size=1000"}).find("power of two"), std::string::npos);
  EXPECT_NE(refusal({"-accel", "kvm,dirty-rign-size=1024"}).find("dirty-ring-size"), std::string::npos);
  EXPECT_NE(refusal({"-accel", "jit,thread=single"}).find("thread of its own"), std::string::npos);
  EXPECT_NE(refusal({"-accel", "thread=multi"}).find("name an accelerator"), std::string::npos);
  EXPECT_NE(refusal({"-accel", "kvm:jti"}).find("'jit'"), std::string::npos);
}

TEST_F(LaunchPlanTest, RtcDateIsUtc) {
  const auto made = plan({"-rtc", "base=2006-06-17T16:01:21,clock=vm"});
  EXPECT_EQ(made.machine.rtc.date_seconds, 1150560081);
  EXPECT_EQ(made.machine.rtc.clock, machine::RtcConfig::ClockSource::kVirtual);
}

TEST_F(LaunchPlanTest, UuidIsInTextOrder) {
  const auto made = plan({"-uuid", "00112233-4455-6677-8899-aabbccddeeff"});
  EXPECT_EQ(made.machine.uuid[0], 0x00);
  EXPECT_EQ(made.machine.uuid[15], 0xff);
}

TEST_F(LaunchPlanTest, DevicesAreResolvedWithGlobals) {
  auto made = plan({"-device", "isa-debug-exit,iobase=0xf4", "-global", "isa-debug-exit.iosize=4"});
  ASSERT_TRUE(resolve_devices(made, types_));
  ASSERT_EQ(made.machine.devices.size(), 1u);
  EXPECT_EQ(made.machine.devices[0].properties.integer("iobase"), 0xf4u);
  EXPECT_EQ(made.machine.devices[0].properties.integer("iosize"), 4u);
}

TEST_F(LaunchPlanTest, HelpNamesEveryListedOption) {
  const std::string text = help_text();
  for (const OptionSpec& option : options())
    if (!option.group.empty()) EXPECT_NE(text.find(fmt::format("-{} ", option.name)), std::string::npos) << option.name;
}

TEST_F(LaunchPlanTest, WhatIsMissingSaysSoByName) {
  for (const MissingOption& missing : missing_options())
    EXPECT_EQ(refusal({fmt::format("-{}", missing.name)}), fmt::format("-{}: {}", missing.name, missing.reason));
}

TEST_F(LaunchPlanTest, MistypedOptionsAreRefusedWithTheNearest) {
  EXPECT_EQ(refusal({"-kernal", "x"}), "-kernal: no such option; did you mean -kernel?");
  EXPECT_EQ(refusal({"-m"}), "-m: it wants a value: -m [size=]MEGS");
}

// --- disks

std::vector<std::string> ids_of(const LaunchPlan& plan) {
  std::vector<std::string> ids;
  for (const machine::DriveSpec& drive : plan.drives) ids.push_back(drive.id);
  return ids;
}

TEST_F(LaunchPlanTest, APcHasAnEmptyCdromAndFloppyDrive) {
  LaunchPlan made = plan({});
  ASSERT_TRUE(resolve_drives(made));
  EXPECT_EQ(ids_of(made), (std::vector<std::string>{"ide1-cd0", "floppy0"}));
}

TEST_F(LaunchPlanTest, WithoutDefaultsThereAreNoDrives) {
  LaunchPlan made = plan({"-nodefaults"});
  ASSERT_TRUE(resolve_drives(made));
  EXPECT_TRUE(made.drives.empty());
}

TEST_F(LaunchPlanTest, ACdromTakesThePlaceOfTheEmptyOne) {
  LaunchPlan made = plan({"-cdrom", "x.iso", "-fda", "a,b.img"});
  ASSERT_TRUE(resolve_drives(made));
  ASSERT_EQ(ids_of(made), (std::vector<std::string>{"ide1-cd0", "floppy0"}));
  EXPECT_EQ(made.drives[0].request.filename, "x.iso");
  EXPECT_EQ(made.drives[1].request.filename, "a,b.img");
}

TEST_F(LaunchPlanTest, ADiskOfADeviceLeavesNoEmptyCdromDrive) {
  LaunchPlan made = plan({"-blockdev", "driver=null-co,node-name=n", "-device", "ide-hd,drive=n"});
  ASSERT_TRUE(resolve_devices(made, types_));
  ASSERT_TRUE(resolve_drives(made));
  EXPECT_EQ(ids_of(made), std::vector<std::string>{"floppy0"});
}

// "type netdev" of each card, and the settings of each back end.
std::vector<std::string> network_of(const LaunchPlan& made) {
  std::vector<std::string> lines;
  for (const auto& device : made.machine.devices)
    lines.push_back(fmt::format("{} {}", device.type, device.properties.string("netdev")));
  for (const NetdevPlan& netdev : made.netdevs) {
    std::string line;
    for (const auto& [name, value] : netdev.settings)
      line += fmt::format("{}{}={}", line.empty() ? "" : ",", name, value);
    lines.push_back(line);
  }
  return lines;
}

TEST_F(LaunchPlanTest, ThereIsNoNetworkUnlessItIsAskedFor) {
  for (const auto& words : {std::vector<std::string>{}, {"-nic", "none"}, {"-net", "none"}}) {
    LaunchPlan made = plan(words);
    ASSERT_TRUE(resolve_network(made));
    ASSERT_TRUE(resolve_devices(made, types_));
    EXPECT_TRUE(network_of(made).empty());
  }
}

TEST_F(LaunchPlanTest, EveryFormOfANetworkIsACardAndABackend) {
  using Lines = std::vector<std::string>;
  const std::pair<Lines, Lines> forms[] = {
      {{"-nic", "user,model=e1000"}, {"e1000 nic0", "type=user,id=nic0"}},
      {{"-net", "nic,model=e1000-82540em", "-net", "user"}, {"e1000-82540em net0", "type=user,id=net0"}},
      {{"-nic", "user,model=virtio-net-pci,hostfwd=tcp::1-:2"},
       {"virtio-net-pci nic0", "type=user,hostfwd=tcp::1-:2,id=nic0"}},
      {{"-net", "nic,model=virtio", "-net", "user,restrict=on"},
       {"virtio-net-pci net0", "type=user,restrict=on,id=net0"}},
      {{"-nic", "bridge,br=lan0"}, {"virtio-net-pci nic0", "type=bridge,br=lan0,id=nic0"}},
      {{"-net", "nic", "-net", "socket,listen=:1234"}, {"virtio-net-pci net0", "type=socket,listen=:1234,id=net0"}},
      {{"-redir", "tcp:8022::22", "-redir", ":80::80"},
       {"virtio-net-pci redir0", "type=user,id=redir0,hostfwd=tcp::8022-:22,hostfwd=::80-:80"}},
      {{"-redir", ":80::80", "-nic", "user"}, {"virtio-net-pci nic0", "type=user,id=nic0,hostfwd=::80-:80"}},
      {{"-netdev", "user,id=nic0", "-device", "virtio-net-pci,netdev=nic0", "-nic", "user"},
       {"virtio-net-pci nic1", "virtio-net-pci nic0", "type=user,id=nic0", "type=user,id=nic1"}},
  };
  for (const auto& [words, lines] : forms) {
    LaunchPlan made = plan(words);
    ASSERT_TRUE(resolve_network(made));
    ASSERT_TRUE(resolve_devices(made, types_));
    EXPECT_EQ(network_of(made), lines);
  }
}

TEST_F(LaunchPlanTest, AFileAloneIsTheFirstDisk) {
  LaunchPlan made = plan({"server.qcow2", "-nodefaults", "-snapshot"});
  ASSERT_TRUE(resolve_drives(made));
  ASSERT_EQ(ids_of(made), std::vector<std::string>{"ide0-hd0"});
  EXPECT_TRUE(made.drives[0].snapshot);
}

TEST_F(LaunchPlanTest, ABlockdevIsGivenInEitherForm) {
  const LaunchPlan made =
      plan({"-blockdev", R"({"driver":"qcow2","node-name":"n","file":{"driver":"file","filename":"x"}})", "-blockdev",
            "qcow2,node-name=m,file.driver=file,file.filename=x"});
  ASSERT_EQ(made.nodes.size(), 2u);
  EXPECT_EQ(*made.nodes[0].find("file.filename"), "x");
  EXPECT_EQ(*made.nodes[1].find("driver"), "qcow2");
}

}  // namespace
}  // namespace kite::main
