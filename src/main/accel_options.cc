// -accel, and what -machine says about accelerators.
#include <algorithm>
#include <bit>
#include <initializer_list>

#include "main/option_values.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

constexpr std::string_view kAccelerators[] = {"auto", "kvm", "jit", "tcg", "qtest", "xen"};
constexpr std::string_view kSettings[] = {"accel",   "kernel-irqchip", "dirty-ring-size", "thread",   "translate",
                                          "tb-size", "perf-map",       "profile",         "threshold"};

// What QEMU's accelerators can be told and Kite's cannot.
struct MissingSetting {
  std::string_view name;
  std::string_view reason;
};
constexpr MissingSetting kMissing[] = {
    {"kvm-shadow-mem", "KVM sizes its shadow page tables by itself"},
    {"notify-vmexit", "it does not turn on KVM's notify exits"},
    {"notify-window", "it does not turn on KVM's notify exits"},
    {"one-insn-per-tb", "use -d exec to see every instruction"},
    {"split-wx", "no page of Kite is writable and executable at once"},
    {"igd-passthru", "it belongs to Xen"},
};

std::string accelerator_help() {
  return "Accelerators:\n"
         "  auto   kvm where it is real hardware virtualization, else jit (the default)\n"
         "  kvm    /dev/kvm; settings: kernel-irqchip=on|off|split, dirty-ring-size=N\n"
         "  jit    the software CPU (also named tcg); settings: translate=on|off (on), tb-size=MIB,\n"
         "         threshold=N, perf-map=on|off, profile=on|off\n"
         "  qtest  a test client drives the devices\n"
         "Several, as kvm:jit or by repeating -accel, are tried in order.\n";
}

// "kvm:jit" taken apart.
Result<std::vector<std::string>> accelerator_names(std::string_view list) {
  std::vector<std::string> names;
  for (size_t at = 0; at <= list.size();) {
    const size_t colon = std::min(list.find(':', at), list.size());
    const std::string_view name = list.substr(at, colon - at);
    if (std::find(std::begin(kAccelerators), std::end(kAccelerators), name) == std::end(kAccelerators))
      return fail("-accel {}: no such accelerator{}", name, suggestion(name, kAccelerators));
    names.emplace_back(name);
    at = colon + 1;
  }
  return names;
}

bool takes_kvm_settings(const std::vector<std::string>& accelerators) {
  return std::any_of(accelerators.begin(), accelerators.end(),
                     [](const std::string& name) { return name == "kvm" || name == "auto"; });
}

Result<> set_dirty_ring(OptionContext& context, std::string_view value) {
  const auto entries = parse_unsigned(value);
  if (!entries) return fail("-accel dirty-ring-size: {}", entries.error().message);
  if (*entries != 0 && (!std::has_single_bit(*entries) || *entries < 1024 || *entries > 65536))
    return fail("-accel dirty-ring-size={}: give a power of two from 1024 to 65536, or 0 for none", value);
  context.plan.machine.kvm.dirty_ring_entries = static_cast<uint32_t>(*entries);
  return {};
}

// translate=, tb-size=, threshold=, perf-map=, profile=
Result<> set_translation(OptionContext& context, std::string_view key, std::string_view value) {
  JitOptions& jit = context.plan.machine.jit;
  if (key == "translate") {
    if (value != "on" && value != "off")
      return fail("-accel translate={}: it is on (warm code becomes host code) or off (all is interpreted)", value);
    jit.translate = value == "on";
    return {};
  }
  if (key == "perf-map" || key == "profile") {
    if (value != "on" && value != "off") return fail("-accel {}={}: it is on or off", key, value);
    (key == "profile" ? jit.profile : jit.perf_map) = value == "on";
    return {};
  }
  if (key == "threshold") {
    const auto entries = parse_unsigned(value);
    if (!entries || *entries < 1 || *entries > 1'000'000)
      return fail("-accel threshold={}: give how often a block is entered before it is translated, 1 to 1000000",
                  value);
    jit.threshold = static_cast<uint32_t>(*entries);
    return {};
  }
  const auto mib = parse_unsigned(value);
  if (!mib || *mib < 1 || *mib > 1024)
    return fail("-accel tb-size={}: give the MiB of translated code that a vCPU may keep, 1 to 1024", value);
  jit.code_mib = *mib;
  return {};
}

bool is_jit(const std::vector<std::string>& accelerators) {
  return std::any_of(accelerators.begin(), accelerators.end(),
                     [](const std::string& name) { return name == "jit" || name == "tcg" || name == "auto"; });
}

Result<> check_thread(std::string_view value) {
  if (value == "multi") return {};
  if (value == "single") return fail("-accel thread=single: every vCPU of Kite has a thread of its own; leave it out");
  return fail("-accel thread={}: it is multi: every vCPU has a thread of its own", value);
}

Failure unknown_setting(std::string_view key) {
  for (const MissingSetting& missing : kMissing)
    if (missing.name == key) return fail("-accel {}: Kite has no such setting: {}; leave it out", key, missing.reason);
  return fail("-accel: no such setting '{}'{}", key, suggestion(key, kSettings));
}

}  // namespace

Result<> add_accelerators(OptionContext& context, std::string_view list) {
  KITE_ASSIGN(const auto names, accelerator_names(list));
  auto& chosen = context.plan.machine.accelerators;
  for (const std::string& name : names)
    if (std::find(chosen.begin(), chosen.end(), name) == chosen.end()) chosen.push_back(name);
  return {};
}

Result<> set_kernel_irqchip(OptionContext& context, std::string_view option, std::string_view value) {
  using Irqchip = machine::KvmConfig::Irqchip;
  Irqchip& irqchip = context.plan.machine.kvm.kernel_irqchip;
  if (value == "on")
    irqchip = Irqchip::kOn;
  else if (value == "split")
    irqchip = Irqchip::kSplit;
  else if (value == "off")
    irqchip = Irqchip::kOff;
  else
    return fail("-{} kernel-irqchip={}: it is on (KVM's interrupt controllers), split (KVM's local APICs) or off",
                option, value);
  return {};
}

Result<> apply_accel(OptionContext& context, std::string_view text) {
  if (text == "help" || text == "?") {
    context.plan.text = accelerator_help();
    return {};
  }
  KITE_ASSIGN(const auto pairs, parse_options(text, "accel"));
  std::vector<std::string> names;  // of this option alone
  for (const auto& [key, value] : pairs)
    if (key == "accel") {
      KITE_ASSIGN(names, accelerator_names(value));
    }
  if (names.empty()) return fail("-accel {}: name an accelerator first: {}", text, fmt::join(kAccelerators, ", "));
  for (const auto& [key, value] : pairs) {
    if (key == "accel") {
      KITE_TRY(add_accelerators(context, value));
    } else if (key == "kernel-irqchip" || key == "dirty-ring-size") {
      if (!takes_kvm_settings(names)) return fail("-accel {}: '{}' is a setting of kvm", text, key);
      KITE_TRY(key == "kernel-irqchip" ? set_kernel_irqchip(context, "accel", value) : set_dirty_ring(context, value));
    } else if (key == "translate" || key == "tb-size" || key == "perf-map" || key == "profile" || key == "threshold") {
      if (!is_jit(names)) return fail("-accel {}: '{}' is a setting of jit", text, key);
      KITE_TRY(set_translation(context, key, value));
    } else if (key == "thread") {
      KITE_TRY(check_thread(value));
    } else {
      return unknown_setting(key);
    }
  }
  return {};
}

}  // namespace kite::main
