// The -cpu argument: a model and its edits, resolved against what the accelerator offers.
#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <utility>

#include "support/suggest.h"
#include "x86/cpuid.h"

namespace kite::x86 {

namespace {

constexpr std::string_view kNumberKeys[] = {"family", "model",     "stepping",  "level",
                                            "xlevel", "min-level", "min-xlevel"};
constexpr std::string_view kOtherKeys[] = {"enforce", "check", "vendor", "model-id", "apic-id"};
// Switches that configurations carry and that nothing hangs on here.
constexpr std::string_view kIgnoredKeys[] = {"migratable", "host-phys-bits", "l3-cache", "kvm"};
constexpr size_t kVendorLength = 12, kModelIdLength = 48;

uint32_t& word_of(FeatureSet& set, FeatureWord word) { return set[static_cast<size_t>(word)]; }

// Both of "lahf_lm" and "lahf-lm" are in use, for every name.
std::string with_dashes(std::string_view name) {
  std::string text(name);
  std::ranges::replace(text, '_', '-');
  return text;
}

const FeatureName* find_feature(std::string_view name) {
  const std::string dashed = with_dashes(name);
  for (const FeatureName& row : feature_names())
    if (row.name == dashed) return &row;
  return nullptr;
}

Failure unknown_model(std::string_view name) {
  std::vector<std::string_view> names;
  for (const CpuModel& model : cpu_models()) names.push_back(model.name);
  return fail("no such CPU model '{}'{}", name, suggestion(name, names));
}

Failure unknown_setting(std::string_view name, bool only_flags) {
  std::vector<std::string_view> names;
  for (const FeatureName& row : feature_names()) names.push_back(row.name);
  if (!only_flags) {
    names.insert(names.end(), std::begin(kNumberKeys), std::end(kNumberKeys));
    names.insert(names.end(), std::begin(kOtherKeys), std::end(kOtherKeys));
    names.insert(names.end(), std::begin(kIgnoredKeys), std::end(kIgnoredKeys));
  }
  const std::string_view near = nearest(name, names);
  const std::string hint =
      near.empty() ? std::string("; -cpu help lists them") : fmt::format("; did you mean '{}'?", near);
  return fail("no such CPU flag{} '{}'{}", only_flags ? "" : " or setting", name, hint);
}

Result<uint32_t> parse_number(std::string_view key, std::string_view text, uint32_t most) {
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  const std::string_view digits = hex ? text.substr(2) : text;
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, hex ? 16 : 10);
  if (error != std::errc{} || end != digits.data() + digits.size() || value > most)
    return fail("{}={}: not a number from 0 to {:#x}", key, text, most);
  return value;
}

Result<bool> parse_switch(std::string_view key, std::string_view text) {
  if (text == "on" || text == "yes" || text == "true") return true;
  if (text == "off" || text == "no" || text == "false") return false;
  return fail("{}={}: say on or off", key, text);
}

// The edits of one argument, gathered before anything is decided.
struct Edits {
  FeatureSet add{}, remove{};
  bool check = true;
  bool level_given = false, xlevel_given = false;
};

Result<> set_number(std::string_view key, std::string_view value, CpuSpec& spec, Edits& edits) {
  struct Row {
    std::string_view key;
    uint32_t CpuSpec::* field;
    uint32_t most;
  };
  // Family and model are as wide as CPUID.1:EAX can tell, extensions added.
  static constexpr Row kRows[] = {{"family", &CpuSpec::family, 0xff + 0xf},
                                  {"model", &CpuSpec::model, 0xff},
                                  {"stepping", &CpuSpec::stepping, 0xf},
                                  {"level", &CpuSpec::level, 0x7fffffff},
                                  {"xlevel", &CpuSpec::xlevel, 0xffffffff}};
  // "min-" raises the level as a flag in a higher leaf would.
  if (const bool extended = key == "min-xlevel"; extended || key == "min-level") {
    uint32_t& level = extended ? spec.xlevel : spec.level;
    KITE_ASSIGN(const uint32_t least, parse_number(key, value, extended ? 0xffffffff : 0x7fffffff));
    level = std::max(level, extended ? least | 0x80000000 : least);
    return {};
  }
  const Row& row = *std::ranges::find(kRows, key, &Row::key);
  KITE_ASSIGN(spec.*row.field, parse_number(key, value, row.most));
  edits.level_given |= key == "level";
  edits.xlevel_given |= key == "xlevel";
  if (key == "xlevel") spec.xlevel |= 0x80000000;  // "xlevel=8" is said too
  return {};
}

Result<> set_key(std::string_view key, std::string_view value, CpuSpec& spec, Edits& edits) {
  if (std::ranges::find(kNumberKeys, key) != std::end(kNumberKeys)) return set_number(key, value, spec, edits);
  if (key == "vendor") {
    if (value.size() != kVendorLength) return fail("vendor={}: must have {} characters", value, kVendorLength);
    spec.vendor = value;
    return {};
  }
  if (key == "apic-id") {
    KITE_ASSIGN(spec.apic_id, parse_number(key, value, 0xff));
    return {};
  }
  if (key == "model-id") {
    if (value.size() > kModelIdLength) return fail("model-id={}: at most {} characters", value, kModelIdLength);
    spec.model_id = value;
    return {};
  }
  const FeatureName* const row = find_feature(key);
  const bool ignored = std::ranges::find(kIgnoredKeys, key) != std::end(kIgnoredKeys);
  if (row == nullptr && !ignored && key != "enforce" && key != "check") return unknown_setting(key, false);
  KITE_ASSIGN(const bool on, parse_switch(key, value));
  if (ignored) return {};
  if (key == "enforce") {
    spec.enforce = on;
  } else if (key == "check") {
    edits.check = on;
  } else {
    const uint32_t bit = uint32_t{1} << row->bit;
    word_of(edits.add, row->word) &= ~bit;
    word_of(on ? edits.add : edits.remove, row->word) |= bit;
    if (on) word_of(edits.remove, row->word) &= ~bit;
  }
  return {};
}

Result<> apply_sign(std::string_view item, FeatureSet& plus, FeatureSet& minus) {
  const FeatureName* const row = find_feature(item.substr(1));
  if (row == nullptr) return unknown_setting(item.substr(1), true);
  word_of(item.front() == '+' ? plus : minus, row->word) |= uint32_t{1} << row->bit;
  return {};
}

// "+flag" stands above "flag=off", and "-flag" above all, wherever in the text they are.
Result<Edits> parse_edits(std::string_view text, CpuSpec& spec) {
  Edits edits;
  FeatureSet plus{}, minus{};
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(item.size() + 1, text.size()));
    if (item.empty()) return fail("an empty setting between commas");
    if (item.front() == '+' || item.front() == '-') {
      KITE_TRY(apply_sign(item, plus, minus));
      continue;
    }
    const size_t equals = item.find('=');
    const bool bare = equals == std::string_view::npos;
    const std::string key = with_dashes(item.substr(0, equals));
    const bool wants_value = key == "vendor" || key == "apic-id" || key == "model-id" ||
                             std::ranges::find(kNumberKeys, std::string_view(key)) != std::end(kNumberKeys);
    if (bare && wants_value) return fail("{}: needs a value, as in {}=VALUE", key, key);
    KITE_TRY(set_key(key, bare ? std::string_view("on") : item.substr(equals + 1), spec, edits));
  }
  for (size_t i = 0; i < kFeatureWords; ++i) {
    edits.add[i] = (edits.add[i] | plus[i]) & ~minus[i];
    edits.remove[i] = (edits.remove[i] & ~plus[i]) | minus[i];
  }
  return edits;
}

void list_missing(const FeatureSet& missing, std::vector<std::string>& names) {
  FeatureSet left = missing;
  for (const FeatureName& row : feature_names()) {  // the first row of a bit is its name
    if (((word_of(left, row.word) >> row.bit) & 1) == 0) continue;
    names.emplace_back(row.name);
    word_of(left, row.word) &= ~(uint32_t{1} << row.bit);
  }
}

// Flags that mean nothing without another one.
void drop_orphans(FeatureSet& set) {
  struct Rule {
    FeatureWord needs;
    uint8_t bit;
    FeatureWord word;
    uint32_t dependents;
  };
  static constexpr Rule kRules[] = {
      // XSAVE: AVX, F16C, FMA, AVX2, MPX, AVX-512, PKU, XSAVEOPT and its kin (SDM 1, 13.2 and 14.3)
      {FeatureWord::k1Ecx, 26, FeatureWord::k1Ecx, 1u << 12 | 1u << 28 | 1u << 29},
      {FeatureWord::k1Ecx, 26, FeatureWord::k7Ebx, 1u << 5 | 1u << 14 | 0xdc230000},
      {FeatureWord::k1Ecx, 26, FeatureWord::k7Ecx, 1u << 3},
      {FeatureWord::k1Ecx, 26, FeatureWord::kD1Eax, 0xffffffff},
      // AVX: what is encoded with VEX and EVEX
      {FeatureWord::k1Ecx, 28, FeatureWord::k1Ecx, 1u << 12 | 1u << 29},
      {FeatureWord::k1Ecx, 28, FeatureWord::k7Ebx, 1u << 5 | 0xdc230000},
      {FeatureWord::k1Ecx, 28, FeatureWord::k7Ecx,
       1u << 1 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 14},
      {FeatureWord::k1Ecx, 28, FeatureWord::k71Eax, 1u << 4 | 1u << 23},
      // AVX512F: the other parts of AVX-512
      {FeatureWord::k7Ebx, 16, FeatureWord::k7Ebx, 0xdc220000},
      {FeatureWord::k7Ebx, 16, FeatureWord::k7Ecx, 1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14},
      {FeatureWord::k7Ebx, 16, FeatureWord::k7Edx, 1u << 2 | 1u << 3 | 1u << 8 | 1u << 23},
  };
  for (const Rule& rule : kRules)
    if (((word_of(set, rule.needs) >> rule.bit) & 1) == 0) word_of(set, rule.word) &= ~rule.dependents;
}

// A flag in a leaf beyond `level` would not be seen.
void raise_levels(CpuSpec& spec, const Edits& edits) {
  struct Row {
    FeatureWord word;
    uint32_t leaf;
  };
  static constexpr Row kRows[] = {{FeatureWord::k6Eax, 6},
                                  {FeatureWord::k7Ebx, 7},
                                  {FeatureWord::k7Ecx, 7},
                                  {FeatureWord::k7Edx, 7},
                                  {FeatureWord::k71Eax, 7},
                                  {FeatureWord::kD1Eax, 0xd},
                                  {FeatureWord::k80000001Edx, 0x80000001},
                                  {FeatureWord::k80000001Ecx, 0x80000001},
                                  {FeatureWord::k80000007Edx, 0x80000007},
                                  {FeatureWord::k80000008Ebx, 0x80000008}};
  for (const Row& row : kRows) {
    if (word_of(spec.features, row.word) == 0) continue;
    if (row.leaf < 0x80000000 && !edits.level_given) spec.level = std::max(spec.level, row.leaf);
    if (row.leaf >= 0x80000000 && !edits.xlevel_given) spec.xlevel = std::max(spec.xlevel, row.leaf);
  }
  if (spec.has(FeatureWord::k1Ecx, 26) && !edits.level_given) spec.level = std::max(spec.level, 0xdu);
}

CpuSpec spec_of(const CpuModel& model) {
  CpuSpec spec;
  spec.model_name = model.name;
  spec.vendor = model.vendor;
  spec.model_id = model.model_id;
  spec.family = model.family;
  spec.model = model.model;
  spec.stepping = model.stepping;
  spec.level = model.level;
  spec.xlevel = model.xlevel;
  return spec;
}

// "NAME-v1" is the first version of a model, and the only one that there is here.
const CpuModel* find_model(std::string_view name) {
  constexpr std::string_view kFirst = "-v1";
  const auto models = cpu_models();
  auto model = std::ranges::find(models, name, &CpuModel::name);
  if (model == models.end() && name.ends_with(kFirst)) {
    model = std::ranges::find(models, name.substr(0, name.size() - kFirst.size()), &CpuModel::name);
    if (model != models.end() && model->takes_all_offered) model = models.end();
  }
  return model == models.end() ? nullptr : &*model;
}

constexpr uint32_t kSvm = 1u << 2;  // CPUID.80000001H:ECX

// What can be given: OSXSAVE and OSPKE follow the guest's CR4 whatever is offered, and HYPERVISOR costs nothing.
FeatureSet givable(FeatureSet offered) {
  word_of(offered, FeatureWord::k1Ecx) &= ~(uint32_t{1} << 27);
  word_of(offered, FeatureWord::k7Ecx) &= ~(uint32_t{1} << 4);
  word_of(offered, FeatureWord::k1Ecx) |= uint32_t{1} << 31;
  return offered;
}

}  // namespace

Result<CpuSpec> parse_cpu(std::string_view text, const FeatureSet& offered) {
  const std::string_view name = text.substr(0, text.find(','));
  text.remove_prefix(std::min(name.size() + 1, text.size()));
  const CpuModel* const model = find_model(name);
  if (model == nullptr) return unknown_model(name);

  CpuSpec spec = spec_of(*model);
  auto edits = parse_edits(text, spec);
  if (!edits) return fail("-cpu {}: {}", name, edits.error().message);

  const FeatureSet possible = givable(offered);
  const FeatureSet base = model->takes_all_offered ? possible : model->features;
  FeatureSet missing{};
  for (size_t i = 0; i < kFeatureWords; ++i) {
    const uint32_t own = base[i] & ~edits->remove[i];
    spec.features[i] = (own | edits->add[i]) & possible[i];
    if (edits->check || spec.enforce) missing[i] = (own | edits->add[i]) & ~possible[i];
  }
  if (!spec.enforce)
    word_of(missing, FeatureWord::k80000001Ecx) &= ~kSvm | word_of(edits->add, FeatureWord::k80000001Ecx);
  drop_orphans(spec.features);
  raise_levels(spec, *edits);
  list_missing(missing, spec.missing);
  return spec;
}

uint32_t CpuSpec::signature() const {
  // [SDM 2A CPUID] Families above 15 go into the extended family field; models have their high bits in bits 19:16.
  const uint32_t base_family = std::min(family, 15u);
  return (family - base_family) << 20 | (model >> 4) << 16 | base_family << 8 | (model & 15) << 4 | (stepping & 15);
}

}  // namespace kite::x86
