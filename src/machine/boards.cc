#include <algorithm>

#include "machine/board.h"
#include "machine/pc/pc_board.h"
#include "machine/q35/q35_board.h"

namespace kite::machine {

namespace {

constexpr BoardInfo pc(std::string_view name, std::string_view alias = "") {
  return {.name = name,
          .alias = alias,
          .description = "PC of 1996: i440FX and PIIX3",
          .default_cpu = "qemu64",
          .max_cpus = 255,
          .is_default = !alias.empty()};
}

constexpr BoardInfo q35(std::string_view name, std::string_view alias = "") {
  return {.name = name,
          .alias = alias,
          .description = "PC of 2009: Q35 and ICH9, PCI Express",
          .default_cpu = "qemu64",
          .max_cpus = 255,
          .is_default = false};
}

constexpr std::string_view kPcFamily = "pc-i440fx", kQ35Family = "pc-q35";

constexpr BoardInfo kBoards[] = {
    pc("pc-i440fx-7.2", "pc"),
    pc("pc-i440fx-7.1"),
    pc("pc-i440fx-7.0"),
    pc("pc-i440fx-6.2"),
    pc("pc-i440fx-6.1"),
    pc("pc-i440fx-6.0"),
    pc("pc-i440fx-5.2"),
    pc("pc-i440fx-5.1"),
    pc("pc-i440fx-5.0"),
    pc("pc-i440fx-4.2"),
    pc("pc-i440fx-4.1"),
    q35("pc-q35-7.2", "q35"),
    q35("pc-q35-7.1"),
    q35("pc-q35-7.0"),
    q35("pc-q35-6.2"),
    q35("pc-q35-6.1"),
    q35("pc-q35-6.0"),
    q35("pc-q35-5.2"),
    q35("pc-q35-5.1"),
    q35("pc-q35-5.0"),
    q35("pc-q35-4.2"),
    q35("pc-q35-4.1"),
    {.name = "none",
     .alias = "",
     .description = "empty machine: no CPUs, no devices",
     .default_cpu = "",
     .max_cpus = 0,
     .is_default = false},
};

// Nothing but address spaces; for asking the monitor what Kite can do.
class EmptyBoard final : public Board {
 public:
  [[nodiscard]] std::string_view name() const override { return "none"; }
  [[nodiscard]] std::vector<bus::Device*> devices() override { return {}; }
  [[nodiscard]] LocalApic* local_apic(uint32_t) override { return nullptr; }
  void connect_cpu(uint32_t, Vcpu&) override {}
  Result<> load_software(std::vector<std::unique_ptr<Vcpu>>&) override { return {}; }
  void power_button() override {}
  void fpu_error() override {}
  [[nodiscard]] IrqTap* irq_tap(std::string_view) override { return nullptr; }
};

}  // namespace

std::span<const BoardInfo> boards() { return kBoards; }

const BoardInfo* find_board(std::string_view name) {
  if (name == kPcFamily) name = "pc";  // a family stands for its newest
  const auto found = std::find_if(std::begin(kBoards), std::end(kBoards), [&](const BoardInfo& board) {
    return board.name == name || (!board.alias.empty() && board.alias == name);
  });
  return found == std::end(kBoards) ? nullptr : &*found;
}

bus::Device* Board::find_device(std::string_view path) {
  for (bus::Device* device : devices())
    if (device->path() == path) return device;
  return nullptr;
}

Result<std::unique_ptr<Board>> create_board(BoardContext context) {
  const BoardInfo* const info = find_board(context.config.board);
  if (info == nullptr) return fail("-machine {}: no such board", context.config.board);
  if (info->name.starts_with(kPcFamily)) return PcBoard::create(std::move(context));
  if (info->name.starts_with(kQ35Family)) return Q35Board::create(std::move(context));
  if (!context.config.kernel_path.empty()) return fail("-kernel: board none has no CPU to run it; use -machine pc");
  if (!context.config.devices.empty())
    return fail("-device {}: board none has no bus to put it on; use -machine pc", context.config.devices[0].type);
  return std::make_unique<EmptyBoard>();
}

}  // namespace kite::machine
