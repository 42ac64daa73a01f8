#include "monitor/stats_commands.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "support/suggest.h"

namespace kite::monitor {

namespace {

using metrics::Description;
using metrics::Kind;
using metrics::Sample;
using metrics::Subject;
using metrics::Unit;
using Target = Subject::Target;

constexpr std::string_view kProviders[] = {"kvm", "kite"};
constexpr std::string_view kTargets[] = {"vm", "vcpu"};

std::string_view target_name(Target target) { return target == Target::kVm ? kTargets[0] : kTargets[1]; }

bool is_provider(std::string_view name) {
  return std::find(std::begin(kProviders), std::end(kProviders), name) != std::end(kProviders);
}

std::optional<Target> target_of(std::string_view name) {
  if (name == kTargets[0]) return Target::kVm;
  if (name == kTargets[1]) return Target::kVcpu;
  return std::nullopt;
}

// Which metrics are wanted; nothing said is everything.
struct Filter {
  struct Provider {
    std::string name;
    std::optional<std::vector<std::string>> metrics;
  };
  std::optional<Target> target;
  std::optional<std::vector<std::string>> vcpus;  // paths
  std::optional<std::vector<Provider>> providers;

  // The entry that lets a source pass: null is no; an entry without names is all of its metrics.
  [[nodiscard]] const Provider* match(const metrics::Source& source) const {
    static const Provider kAll;
    const Subject subject = source.subject();
    if (target && subject.target != *target) return nullptr;
    if (vcpus && subject.target == Target::kVcpu &&
        std::find(vcpus->begin(), vcpus->end(), vcpu_path(subject.vcpu)) == vcpus->end())
      return nullptr;
    if (!providers) return &kAll;
    const auto found = std::find_if(providers->begin(), providers->end(),
                                    [&](const Provider& provider) { return provider.name == source.provider(); });
    return found == providers->end() ? nullptr : &*found;
  }
  static bool wants(const Provider& provider, const std::string& name) {
    return !provider.metrics ||
           std::find(provider.metrics->begin(), provider.metrics->end(), name) != provider.metrics->end();
  }
};

// What one provider says about one subject.
struct Section {
  std::string provider;
  Subject subject;
  std::vector<Sample> samples;
};

std::vector<Section> collect(const metrics::Registry& registry, const Filter& filter) {
  std::vector<Section> sections;
  registry.for_each([&](const metrics::Source& source) {
    const Filter::Provider* provider = filter.match(source);
    if (provider == nullptr) return;
    std::vector<Sample> samples = source.read();
    std::erase_if(samples, [&](const Sample& sample) { return !Filter::wants(*provider, sample.description.name); });
    if (samples.empty()) return;
    auto section = std::find_if(sections.begin(), sections.end(), [&](const Section& known) {
      return known.provider == source.provider() && known.subject == source.subject();
    });
    if (section == sections.end())
      section = sections.insert(
          section, {.provider = std::string(source.provider()), .subject = source.subject(), .samples = {}});
    section->samples.insert(section->samples.end(), std::make_move_iterator(samples.begin()),
                            std::make_move_iterator(samples.end()));
  });
  return sections;
}

bool is_histogram(Kind kind) { return kind == Kind::kLinearHistogram || kind == Kind::kLog2Histogram; }

Json value_json(const Sample& sample) {
  if (is_histogram(sample.description.kind) || sample.values.size() != 1) return sample.values;
  if (sample.description.unit == Unit::kBoolean) return sample.values[0] != 0;
  return sample.values[0];
}

// --- arguments

std::unexpected<QmpError> wrong_type(std::string_view name, std::string_view expected) {
  return qmp_fail("Invalid parameter type for '{}', expected: {}", name, expected);
}

std::expected<std::vector<std::string>, QmpError> strings(const Json& list, std::string_view name) {
  std::vector<std::string> texts;
  if (!list.is_array()) return wrong_type(name, "array");
  for (const Json& item : list) {
    if (!item.is_string()) return wrong_type(name, "string");
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::expected<Filter::Provider, QmpError> provider_filter(const Json& item) {
  if (!item.is_object()) return wrong_type("providers", "object");
  const auto name = item.find("provider");
  if (name == item.end()) return qmp_fail("Parameter 'provider' is missing");
  if (!name->is_string()) return wrong_type("provider", "string");
  Filter::Provider provider{.name = name->get<std::string>(), .metrics = std::nullopt};
  if (!is_provider(provider.name)) return qmp_fail("Parameter 'provider' does not accept value '{}'", provider.name);
  for (const auto& [key, value] : item.items()) {
    if (key == "provider") continue;
    if (key != "names") return qmp_fail("Parameter '{}' is unexpected", key);
    auto names = strings(value, "names");
    if (!names) return std::unexpected(names.error());
    provider.metrics = std::move(*names);
  }
  return provider;
}

std::expected<Filter, QmpError> stats_filter(const Json& arguments) {
  Filter filter;
  const auto target = arguments.at("target").get<std::string>();
  filter.target = target_of(target);
  if (!filter.target) return qmp_fail("Parameter 'target' does not accept value '{}'", target);
  if (const auto vcpus = arguments.find("vcpus"); vcpus != arguments.end()) {
    if (filter.target != Target::kVcpu) return qmp_fail("Parameter 'vcpus' is unexpected");
    auto paths = strings(*vcpus, "vcpus");
    if (!paths) return std::unexpected(paths.error());
    filter.vcpus = std::move(*paths);
  }
  if (const auto providers = arguments.find("providers"); providers != arguments.end()) {
    filter.providers.emplace();
    for (const Json& item : *providers) {
      auto provider = provider_filter(item);
      if (!provider) return std::unexpected(provider.error());
      filter.providers->push_back(std::move(*provider));
    }
  }
  return filter;
}

Json schema_json(const Description& description) {
  Json entry{{"name", description.name}, {"type", metrics::kind_name(description.kind)}};
  if (description.unit != Unit::kNone) entry["unit"] = metrics::unit_name(description.unit);
  if (description.exponent != 0) entry["base"] = description.base;
  entry["exponent"] = description.exponent;
  if (description.kind == Kind::kLinearHistogram) entry["bucket-size"] = description.bucket_size;
  return entry;
}

// --- for people

std::string unit_text(const Description& description) {
  static constexpr std::string_view kSeconds[] = {"s", "ms", "us", "ns"};
  if (description.unit == Unit::kNone || description.unit == Unit::kBoolean) return {};
  if (description.unit == Unit::kSeconds && description.base == 10 && description.exponent <= 0 &&
      description.exponent >= -9 && description.exponent % 3 == 0)
    return fmt::format(", {}", kSeconds[static_cast<size_t>(-description.exponent / 3)]);
  const std::string_view unit = metrics::unit_name(description.unit);
  if (description.exponent == 0) return fmt::format(", {}", unit);
  return fmt::format(", {}^{} {}", description.base, description.exponent, unit);
}

std::string sample_text(const Sample& sample) {
  const Description& description = sample.description;
  std::string text =
      fmt::format("    {} ({}{}): ", description.name, metrics::kind_name(description.kind), unit_text(description));
  if (is_histogram(description.kind) || sample.values.size() != 1)
    text += fmt::format("[{}]", fmt::join(sample.values, ", "));
  else if (description.unit == Unit::kBoolean)
    text += sample.values[0] != 0 ? "yes" : "no";
  else
    text += fmt::format("{}", sample.values[0]);
  return text + '\n';
}

std::vector<std::string> words_of(std::string_view text, char separator) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    if (end != 0) words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return words;
}

}  // namespace

std::string vcpu_path(size_t index) { return fmt::format("/machine/unattached/device[{}]", index); }

QmpReply query_stats(const metrics::Registry& registry, const Json& arguments) {
  const auto filter = stats_filter(arguments);
  if (!filter) return std::unexpected(filter.error());
  Json list = Json::array();
  for (const Section& section : collect(registry, *filter)) {
    Json stats = Json::array();
    for (const Sample& sample : section.samples)
      stats.push_back({{"name", sample.description.name}, {"value", value_json(sample)}});
    Json entry{{"provider", section.provider}};
    if (section.subject.target == Target::kVcpu) entry["qom-path"] = vcpu_path(section.subject.vcpu);
    entry["stats"] = std::move(stats);
    list.push_back(std::move(entry));
  }
  return list;
}

QmpReply query_stats_schemas(const metrics::Registry& registry, const Json& arguments) {
  Filter filter;
  if (const auto provider = arguments.find("provider"); provider != arguments.end()) {
    const auto name = provider->get<std::string>();
    if (!is_provider(name)) return qmp_fail("Parameter 'provider' does not accept value '{}'", name);
    filter.providers = std::vector<Filter::Provider>{{.name = name, .metrics = std::nullopt}};
  }
  Json list = Json::array();
  std::vector<Section> described;  // every vCPU has the same metrics: one of them stands for all
  for (Section& section : collect(registry, filter)) {
    const bool known = std::any_of(described.begin(), described.end(), [&](const Section& other) {
      return other.provider == section.provider && other.subject.target == section.subject.target;
    });
    if (known) continue;
    Json stats = Json::array();
    for (const Sample& sample : section.samples) stats.push_back(schema_json(sample.description));
    list.push_back(
        {{"provider", section.provider}, {"target", target_name(section.subject.target)}, {"stats", std::move(stats)}});
    described.push_back(std::move(section));
  }
  return list;
}

std::string info_stats(const metrics::Registry& registry, std::string_view arguments) {
  const std::vector<std::string> words = words_of(arguments, ' ');
  Filter filter;
  if (!words.empty()) {
    filter.target = target_of(words[0]);
    if (!filter.target)
      return fmt::format("info stats {}: no such target{}\n", words[0], suggestion(words[0], kTargets));
  }
  std::optional<std::vector<std::string>> names;
  if (words.size() > 1 && words[1] != "*") names = words_of(words[1], ',');
  if (words.size() > 2 && !is_provider(words[2]))
    return fmt::format("info stats: no such provider '{}'{}\n", words[2], suggestion(words[2], kProviders));
  if (words.size() > 1) {
    filter.providers.emplace();
    for (const std::string_view provider : kProviders)
      if (words.size() < 3 || words[2] == provider)
        filter.providers->push_back({.name = std::string(provider), .metrics = names});
  }
  std::string text;
  for (const Section& section : collect(registry, filter)) {
    text += fmt::format("provider: {}", section.provider);
    if (section.subject.target == Target::kVcpu) text += fmt::format(", CPU #{}", section.subject.vcpu);
    text += '\n';
    for (const Sample& sample : section.samples) text += sample_text(sample);
  }
  return text;
}

}  // namespace kite::monitor
