// What a transaction can do: each action is a command of the same name with the same arguments.
#pragma once

#include <expected>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "machine/block_transaction.h"
#include "monitor/qmp_commands.h"

namespace kite::monitor {

using ActionReply = std::expected<std::unique_ptr<machine::BlockAction>, QmpError>;
struct ActionSpec {
  std::string_view name;
  std::span<const ArgumentSpec> arguments;
  ActionReply (*make)(MonitorContext& context, const Json& data);
};

std::span<const ActionSpec> backup_actions();  // backup_commands.cc
std::span<const ActionSpec> bitmap_actions();  // bitmap_commands.cc

// A machine that has disks which nothing else is just moving.
std::expected<void, QmpError> may_change_disks(MonitorContext& context);
QmpReply run_actions(MonitorContext& context, std::vector<std::unique_ptr<machine::BlockAction>> actions);

// The command by itself.
template <ActionReply (*Make)(MonitorContext& context, const Json& data)>
QmpReply single_action(MonitorContext& context, const Json& arguments) {
  if (auto may = may_change_disks(context); !may) return std::unexpected(may.error());
  ActionReply action = Make(context, arguments);
  if (!action) return std::unexpected(action.error());
  std::vector<std::unique_ptr<machine::BlockAction>> actions;
  actions.push_back(std::move(*action));
  return run_actions(context, std::move(actions));
}

}  // namespace kite::monitor
