#include "machine/object_types.h"

#include "machine/board.h"
#include "x86/cpuid.h"

namespace kite::machine {

std::string machine_type_name(std::string_view board) { return fmt::format("{}-machine", board); }
std::string cpu_type_name(std::string_view model) { return fmt::format("{}-x86_64-cpu", model); }

namespace {

ObjectType part(std::string name, std::string parent, std::string description) {
  return {.name = std::move(name),
          .parent = std::move(parent),
          .description = std::move(description),
          .bus = "",
          .user_creatable = false,
          .by_type = false,
          .properties = {}};
}

ObjectType group(std::string name, std::string parent, std::string description, std::vector<Property> properties) {
  ObjectType type = part(std::move(name), std::move(parent), std::move(description));
  type.abstract = true;
  type.properties = std::move(properties);
  return type;
}

// What -machine takes.
void add_boards(TypeRegistry& registry) {
  registry.add(group("machine", "", "A board",
                     {property::string("accel", "what runs guest code"),
                      property::boolean("graphics", "the guest is told that there is a screen", true),
                      property::string("memory-backend", "the id of the -object that is its RAM"),
                      property::boolean("dump-guest-core", "core dumps of the process hold the guest's RAM", true)}));
  registry.add(group("generic-pc-machine", "machine", "A PC",
                     {property::boolean("hpet", "it has a high precision event timer", true),
                      property::boolean("acpi", "the guest is given ACPI tables", true),
                      property::choice("smm", "system management mode", "auto", {"on", "off", "auto"}),
                      property::choice("kernel-irqchip", "KVM's interrupt controllers", "on", {"on", "off", "split"}),
                      property::choice("smbios-entry-point-type", "which SMBIOS", "32", {"32", "64"})}));
  for (const BoardInfo& board : boards())
    registry.add(part(machine_type_name(board.name), board.max_cpus == 0 ? "machine" : "generic-pc-machine",
                      std::string(board.description)));
}

void add_accelerators(TypeRegistry& registry) {
  registry.add(group("accel", "", "What runs guest code", {}));
  registry.add(part("kvm-accel", "accel", "/dev/kvm"));
  registry.add(part("tcg-accel", "accel", "The software CPU, which Kite names jit"));
  registry.add(part("qtest-accel", "accel", "No CPU: a test client drives the devices"));
}

void add_cpus(TypeRegistry& registry) {
  ObjectType cpu = group("x86_64-cpu", "", "A processor", {});
  for (const x86::FeatureName& feature : x86::feature_names())
    cpu.properties.push_back(property::boolean(std::string(feature.name), "", false));
  for (const char* const name : {"family", "model", "stepping", "level", "xlevel", "min-level", "min-xlevel"})
    cpu.properties.push_back(property::unsigned_integer(name, "", 0, 0, UINT32_MAX));
  for (const char* const name : {"vendor", "model-id", "unavailable-features"})
    cpu.properties.push_back(property::string(name, ""));
  cpu.properties.push_back(property::boolean("check", "say which features cannot be given", true));
  cpu.properties.push_back(property::boolean("enforce", "refuse to start without them", false));
  cpu.properties.push_back(property::boolean("migratable", "nothing hangs on it", true));
  registry.add(std::move(cpu));
  for (const x86::CpuModel& model : x86::cpu_models())
    registry.add(part(cpu_type_name(model.name), "x86_64-cpu", std::string(model.description)));
}

}  // namespace

void register_machine_types(TypeRegistry& registry) {
  add_boards(registry);
  add_accelerators(registry);
  add_cpus(registry);
}

}  // namespace kite::machine
