// -netdev, -nic, -net and -redir.
#include <algorithm>

#include "main/option_values.h"
#include "net/net_registry.h"
#include "net/user_options.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using net::Settings;

constexpr std::string_view kDefaultModel = "virtio-net-pci";
constexpr std::string_view kModels[] = {"e1000",
                                        "e1000-82540em",
                                        "virtio",
                                        "virtio-net",
                                        "virtio-net-pci",
                                        "virtio-net-pci-non-transitional",
                                        "virtio-net-pci-transitional"};
constexpr std::string_view kMissingModels[] = {
    "e1000e",   "e1000-82544gc", "e1000-82545em", "i82550",  "i82551", "i82557b", "i82559er", "igb",
    "ne2k_isa", "ne2k_pci",      "pcnet",         "rtl8139", "tulip",  "vmxnet3", "usb-net",  "i82557a"};

bool asks_for_help(std::string_view text) { return text == "help" || text == "?"; }

std::string models_help() { return fmt::format("Network cards:\n  {}\n", fmt::join(kModels, "\n  ")); }

Result<std::string> card_type(std::string_view model) {
  if (std::ranges::find(kModels, model) != std::end(kModels))
    return std::string(model == "virtio" || model == "virtio-net" ? kDefaultModel : model);
  if (std::ranges::find(kMissingModels, model) != std::end(kMissingModels))
    return fail("model={}: this version of Kite has no such card yet; use model={}", model, kDefaultModel);
  return fail("model={}: there is no such card{}", model, suggestion(model, kModels));
}

// Takes the value of a setting out of the list; "" without it.
std::string take(Settings& settings, std::string_view name) {
  const auto at = std::ranges::find(settings, name, &Settings::value_type::first);
  if (at == settings.end()) return {};
  std::string value = std::move(at->second);
  settings.erase(at);
  return value;
}

const std::string* find(const Settings& settings, std::string_view name) {
  const auto at = std::ranges::find(settings, name, &Settings::value_type::first);
  return at == settings.end() ? nullptr : &at->second;
}

std::string free_id(const LaunchPlan& plan, std::string_view word) {
  for (unsigned number = 0;; ++number) {
    std::string id = fmt::format("{}{}", word, number);
    const bool taken = std::ranges::any_of(plan.netdevs, [&](const NetdevPlan& netdev) {
      const std::string* const other = find(netdev.settings, "id");
      return other != nullptr && *other == id;
    });
    if (!taken) return id;
  }
}

// Adds a back end, with a name if it has none; answers its id.
std::string add_netdev(LaunchPlan& plan, std::string option, Settings settings, std::string_view word) {
  if (find(settings, "id") == nullptr) settings.emplace_back("id", free_id(plan, word));
  std::string id = *find(settings, "id");
  plan.netdevs.push_back({.option = std::move(option), .settings = std::move(settings)});
  return id;
}

}  // namespace

Result<> apply_netdev(OptionContext& context, std::string_view text) {
  if (asks_for_help(text)) {
    context.plan.text = net::netdev_help();
    return {};
  }
  auto settings = parse_options(text, "type");
  if (!settings) return fail("-netdev {}: {}", text, settings.error().message);
  context.plan.netdevs.push_back({.option = fmt::format("-netdev {}", text), .settings = std::move(*settings)});
  return {};
}

// A card and a back end of its own in one option.
Result<> apply_nic(OptionContext& context, std::string_view text) {
  if (text == "none") return {};
  if (asks_for_help(text) || text == "model=help") {
    context.plan.text = models_help() + net::netdev_help();
    return {};
  }
  KITE_ASSIGN(Settings settings, parse_options(text, "type"));
  const std::string model = take(settings, "model"), mac = take(settings, "mac");
  auto type = card_type(model.empty() ? kDefaultModel : model);
  if (!type) return fail("-nic {}: {}", text, type.error().message);
  ObjectOptions card{.type = std::move(*type), .id = "", .values = {}};
  if (!mac.empty()) card.values.emplace_back("mac", mac);
  card.values.emplace_back("netdev",
                           add_netdev(context.plan, fmt::format("-nic {}", text), std::move(settings), "nic"));
  context.plan.cards.push_back(std::move(card));
  return {};
}

namespace {

Result<> add_net_card(LaunchPlan& plan, std::string_view text, Settings settings) {
  const std::string model = take(settings, "model"), name = take(settings, "name");
  auto type = card_type(model.empty() ? kDefaultModel : model);
  if (!type) return fail("-net {}: {}", text, type.error().message);
  ObjectOptions card{.type = std::move(*type), .id = name, .values = {}};
  for (auto& [key, value] : settings) {
    constexpr std::string_view kKnown[] = {"model", "macaddr", "netdev", "name", "addr", "vectors"};
    if (std::ranges::find(kKnown, key) == std::end(kKnown))
      return fail("-net {}: nic has no setting '{}'{}", text, key, suggestion(key, kKnown));
    card.values.emplace_back(key == "macaddr" ? "mac" : key, value);
  }
  const bool wired = find(card.values, "netdev") != nullptr;
  plan.cards.push_back(std::move(card));
  if (!wired) plan.loose_cards.push_back(plan.cards.size() - 1);
  return {};
}

}  // namespace

Result<> apply_net(OptionContext& context, std::string_view text) {
  if (text == "none") return {};
  if (asks_for_help(text)) {
    context.plan.text = models_help() + net::netdev_help();
    return {};
  }
  KITE_ASSIGN(Settings settings, parse_options(text, "type"));
  const std::string* const type = find(settings, "type");
  if (type != nullptr && *type == "nic") {
    (void)take(settings, "type");
    return add_net_card(context.plan, text, std::move(settings));
  }
  if (const std::string name = take(settings, "name"); !name.empty()) settings.emplace_back("id", name);
  context.plan.loose_netdevs.push_back(
      add_netdev(context.plan, fmt::format("-net {}", text), std::move(settings), "net"));
  return {};
}

Result<> apply_redir(OptionContext& context, std::string_view text) {
  auto forward = net::forward_of_redirection(text);
  if (!forward) return fail("-redir {}", forward.error().message);
  context.plan.forwards.push_back(std::move(*forward));
  return {};
}

Result<> resolve_network(LaunchPlan& plan) {
  if (plan.loose_cards.size() > 1 || plan.loose_netdevs.size() > 1)
    return fail(
        "-net: this version of Kite connects one card with one back end and has no hub yet; give each card its own "
        "with -netdev user,id=n0 -device virtio-net-pci,netdev=n0");
  if (!plan.loose_cards.empty() && !plan.loose_netdevs.empty())
    plan.cards[plan.loose_cards[0]].values.emplace_back("netdev", plan.loose_netdevs[0]);
  if (plan.forwards.empty()) return {};
  // -redir is for the network that there is, or for one of its own.
  const auto is_user = [](const NetdevPlan& netdev) {
    const std::string* const type = find(netdev.settings, "type");
    return type != nullptr && *type == "user";
  };
  auto user = std::ranges::find_if(plan.netdevs, is_user);
  if (user == plan.netdevs.end()) {
    std::string id = add_netdev(plan, "-redir", {{"type", "user"}}, "redir");
    plan.cards.push_back({.type = std::string(kDefaultModel), .id = "", .values = {{"netdev", std::move(id)}}});
    user = plan.netdevs.end() - 1;
  }
  for (const std::string& forward : plan.forwards) user->settings.emplace_back("hostfwd", forward);
  return {};
}

}  // namespace kite::main
