// The CPU models, built from the table in cpu_model_rows.cc.
#include <algorithm>
#include <cstdlib>

#include "x86/cpu_model_rows.h"
#include "x86/cpuid.h"
#include "x86/host_features.h"

namespace kite::x86 {

namespace {

template <class Visit>
void for_each_flag(std::string_view flags, Visit visit) {
  while (!flags.empty()) {
    const std::string_view name = flags.substr(0, flags.find(' '));
    flags.remove_prefix(std::min(name.size() + 1, flags.size()));
    const auto names = feature_names();
    const auto row = std::ranges::find(names, name, &FeatureName::name);
    if (row == names.end()) std::abort();  // the table misspells a flag
    visit(static_cast<size_t>(row->word), uint32_t{1} << row->bit);
  }
}

FeatureSet flags_of(const CpuModelRow& row, const std::vector<CpuModel>& above) {
  FeatureSet set{};
  if (!row.parent.empty()) {
    const auto parent = std::ranges::find(above, row.parent, &CpuModel::name);
    if (parent == above.end()) std::abort();  // the table names a parent that is not above
    set = parent->features;
  }
  for_each_flag(row.adds, [&set](size_t word, uint32_t bit) { set[word] |= bit; });
  for_each_flag(row.removes, [&set](size_t word, uint32_t bit) { set[word] &= ~bit; });
  return set;
}

CpuModel host_model() {
  static const HostIdentity host = host_identity();  // the model keeps views of its strings
  return {.name = "host",
          .description = "this machine's CPU, as far as the accelerator offers it",
          .vendor = host.vendor,
          .family = host.family,
          .model = host.model,
          .stepping = host.stepping,
          .level = host.level,
          .xlevel = host.xlevel,
          .model_id = host.model_id,
          .features = {},
          .takes_all_offered = true};
}

std::vector<CpuModel> build_models() {
  std::vector<CpuModel> models;
  for (const CpuModelRow& row : cpu_model_rows())
    models.push_back({.name = row.name,
                      .description = row.description,
                      .vendor = row.vendor,
                      .family = row.identity.family,
                      .model = row.identity.model,
                      .stepping = row.identity.stepping,
                      .level = row.level,
                      .xlevel = row.xlevel,
                      .model_id = row.model_id.empty() ? row.description : row.model_id,
                      .features = flags_of(row, models),
                      .takes_all_offered = row.takes_all_offered});
  models.push_back(host_model());
  return models;
}

}  // namespace

std::span<const CpuModel> cpu_models() {
  static const std::vector<CpuModel> models = build_models();
  return models;
}

}  // namespace kite::x86
