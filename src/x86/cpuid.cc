// The CPUID instruction: leaves built from a CpuSpec (SDM 2A, CPUID; APM 3, appendix E).
#include "x86/cpuid.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace kite::x86 {

namespace {

constexpr uint32_t kExtended = 0x80000000, kHypervisor = 0x40000000;
constexpr uint32_t kLineSize = 64;

uint32_t word(const CpuSpec& spec, FeatureWord which) { return spec.features[static_cast<size_t>(which)]; }
bool is_intel(const CpuSpec& spec) { return spec.vendor == "GenuineIntel"; }
bool is_amd(const CpuSpec& spec) { return spec.vendor == "AuthenticAMD" || spec.vendor == "HygonGenuine"; }

// Processors without dies need no leaf that tells of them.
constexpr uint32_t kDieTopologyLeaf = 0x1f;
uint32_t last_basic_leaf(const CpuSpec& spec, const CpuidDynamic& dynamic) {
  return is_intel(spec) && dynamic.topology.dies > 1 ? std::max(spec.level, kDieTopologyLeaf) : spec.level;
}

// Four characters of `text` from `offset`, zeroes past its end.
uint32_t characters(std::string_view text, size_t offset) {
  uint32_t reg = 0;
  if (offset < text.size()) std::memcpy(&reg, text.data() + offset, std::min<size_t>(4, text.size() - offset));
  return reg;
}

// --- caches: one description for all leaves that tell of them

struct Cache {
  uint32_t type;  // 1 data, 2 instructions, 3 both
  uint32_t level, ways, sets;
  bool shared;  // by the cores of a die; otherwise by the threads of a core
};
constexpr Cache kCaches[] = {
    {1, 1, 8, 64, false}, {2, 1, 8, 64, false}, {3, 2, 16, 4096, false}, {3, 3, 16, 16384, true}};
constexpr uint32_t size_kib(const Cache& cache) { return cache.ways * cache.sets * kLineSize / 1024; }

// Leaf 4, and leaf 8000001DH of AMD: `cores` is the field of leaf 4 that the other one has not.
CpuidRegs cache_parameters(const CpuidDynamic& dynamic, uint32_t index, bool with_cores) {
  if (index >= std::size(kCaches)) return {};
  const Cache& cache = kCaches[index];
  // Both count APIC ids, whether there is a processor of that id or not.
  const CpuTopology& topology = dynamic.topology;
  const auto last_of = [](uint32_t bits) { return (uint32_t{1} << bits) - 1; };
  const uint32_t sharing = std::min(last_of(cache.shared ? topology.die_shift() : topology.core_shift()), 0xfffu);
  const uint32_t cores = with_cores ? std::min(last_of(topology.socket_shift() - topology.core_shift()), 0x3fu) : 0;
  constexpr uint32_t kSelfInitializing = 1u << 8;
  return {.eax = cache.type | cache.level << 5 | kSelfInitializing | sharing << 14 | cores << 26,
          .ebx = (cache.ways - 1) << 22 | (kLineSize - 1),
          .ecx = cache.sets - 1,
          .edx = cache.shared ? 1u << 1 : 0};  // inclusive of the lower levels
}

CpuidRegs amd_l1(const CpuSpec&, const CpuidDynamic&, uint32_t) {
  constexpr uint32_t kTlb = 0xff20ff20;  // fully associative, 32 entries each
  const auto describe = [](const Cache& cache) {
    return size_kib(cache) << 24 | cache.ways << 16 | 1u << 8 | kLineSize;
  };
  return {.eax = kTlb, .ebx = kTlb, .ecx = describe(kCaches[0]), .edx = describe(kCaches[1])};
}

CpuidRegs amd_l2(const CpuSpec&, const CpuidDynamic&, uint32_t) {
  constexpr uint32_t kSixteenWays = 8;   // APM 3, table E-4
  constexpr uint32_t kTlb = 0x42004200;  // 4 ways, 512 entries each
  return {.eax = 0,
          .ebx = kTlb,
          .ecx = size_kib(kCaches[2]) << 16 | kSixteenWays << 12 | 1u << 8 | kLineSize,
          .edx = size_kib(kCaches[3]) / 512 << 18 | kSixteenWays << 12 | 1u << 8 | kLineSize};
}

// --- XSAVE

struct Component {
  uint8_t bit;  // of XCR0
  FeatureWord word;
  uint8_t feature;
  uint32_t size, offset;  // bytes, in the standard format
};
// SDM 1, 13.4.3 and 13.5; offsets are those that every processor has.
constexpr Component kComponents[] = {
    {2, FeatureWord::k1Ecx, 28, 256, 576},  {3, FeatureWord::k7Ebx, 14, 64, 960},
    {4, FeatureWord::k7Ebx, 14, 64, 1024},  {5, FeatureWord::k7Ebx, 16, 64, 1088},
    {6, FeatureWord::k7Ebx, 16, 512, 1152}, {7, FeatureWord::k7Ebx, 16, 1024, 1664},
    {9, FeatureWord::k7Ecx, 3, 8, 2688},
};
constexpr uint32_t kLegacyAndHeader = 576;

uint32_t standard_size(uint64_t components) {
  uint32_t size = kLegacyAndHeader;
  for (const Component& part : kComponents)
    if ((components >> part.bit) & 1) size = std::max(size, part.offset + part.size);
  return size;
}

uint32_t compacted_size(uint64_t components) {
  uint32_t size = kLegacyAndHeader;
  for (const Component& part : kComponents)
    if ((components >> part.bit) & 1) size += part.size;
  return size;
}

CpuidRegs xsave_leaf(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t subleaf) {
  const uint64_t supported = supported_xcr0(spec);
  if (supported == 0) return {};
  if (subleaf == 0)
    return {.eax = static_cast<uint32_t>(supported),
            .ebx = standard_size(dynamic.xcr0),
            .ecx = standard_size(supported),
            .edx = static_cast<uint32_t>(supported >> 32)};
  if (subleaf == 1) {
    const uint32_t features = word(spec, FeatureWord::kD1Eax);
    constexpr uint32_t kXsavec = 1u << 1, kXsaves = 1u << 3;
    return {.eax = features,
            .ebx = features & (kXsavec | kXsaves) ? compacted_size(dynamic.xcr0 | dynamic.xss) : 0,
            .ecx = 0,
            .edx = 0};
  }
  for (const Component& part : kComponents)
    if (part.bit == subleaf && ((supported >> subleaf) & 1))
      return {.eax = part.size, .ebx = part.offset, .ecx = 0, .edx = 0};
  return {};
}

// --- basic leaves

CpuidRegs vendor_leaf(uint32_t last, std::string_view vendor) {
  return {.eax = last, .ebx = characters(vendor, 0), .ecx = characters(vendor, 8), .edx = characters(vendor, 4)};
}

CpuidRegs leaf_0(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t) {
  return vendor_leaf(last_basic_leaf(spec, dynamic), spec.vendor);
}

CpuidRegs leaf_1(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t) {
  constexpr uint32_t kApic = 1u << 9, kClflush = 1u << 19, kHtt = 1u << 28, kOsxsave = 1u << 27;
  CpuidRegs regs{.eax = spec.signature(),
                 .ebx = (dynamic.apic_id & 0xff) << 24,
                 .ecx = word(spec, FeatureWord::k1Ecx),
                 .edx = word(spec, FeatureWord::k1Edx)};
  if (regs.edx & kClflush) regs.ebx |= kLineSize / 8 << 8;
  if (dynamic.osxsave && spec.has(FeatureWord::k1Ecx, 26)) regs.ecx |= kOsxsave;
  if (!dynamic.apic_enabled) regs.edx &= ~kApic;
  if (const uint32_t processors = dynamic.topology.in_socket(); processors > 1) {
    regs.ebx |= std::min(processors, 0xffu) << 16;
    regs.edx |= kHtt;
  }
  return regs;
}

CpuidRegs leaf_2(const CpuSpec&, const CpuidDynamic&, uint32_t) {
  // One round; leaf 4 has the caches (FFH); 4 KiB TLBs: 128 entries for code (B0H), 64 for data (03H).
  return {.eax = 0x03b0ff01, .ebx = 0, .ecx = 0, .edx = 0};
}

CpuidRegs leaf_4(const CpuSpec&, const CpuidDynamic& dynamic, uint32_t subleaf) {
  return cache_parameters(dynamic, subleaf, true);
}

CpuidRegs leaf_5(const CpuSpec& spec, const CpuidDynamic&, uint32_t) {
  if (!spec.has(FeatureWord::k1Ecx, 3)) return {};
  constexpr uint32_t kEnumerated = 1, kInterruptsBreak = 2;
  return {.eax = kLineSize, .ebx = kLineSize, .ecx = kEnumerated | kInterruptsBreak, .edx = 0};
}

CpuidRegs leaf_6(const CpuSpec& spec, const CpuidDynamic&, uint32_t) {
  return {.eax = word(spec, FeatureWord::k6Eax), .ebx = 0, .ecx = 0, .edx = 0};
}

CpuidRegs leaf_7(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t subleaf) {
  const uint32_t second = word(spec, FeatureWord::k71Eax);
  if (subleaf == 1) return {.eax = second, .ebx = 0, .ecx = 0, .edx = 0};
  if (subleaf != 0) return {};
  const uint32_t ospke = dynamic.ospke && spec.has(FeatureWord::k7Ecx, 3) ? 1u << 4 : 0;
  return {.eax = second != 0 ? 1u : 0u,  // the last subleaf
          .ebx = word(spec, FeatureWord::k7Ebx),
          .ecx = word(spec, FeatureWord::k7Ecx) | ospke,
          .edx = word(spec, FeatureWord::k7Edx)};
}

// A level of leaves BH and 1FH: the bits of an APIC id below the next level's, and the processors that share it.
struct Level {
  uint32_t type, bits, processors;
};
CpuidRegs topology_level(std::span<const Level> levels, uint32_t apic_id, uint32_t subleaf) {
  CpuidRegs regs{.eax = 0, .ebx = 0, .ecx = subleaf & 0xff, .edx = apic_id};
  if (subleaf >= levels.size()) return regs;
  const Level& level = levels[subleaf];
  regs.eax = level.bits;
  regs.ebx = std::min(level.processors, 0xffffu);
  regs.ecx |= level.type << 8;
  return regs;
}
constexpr uint32_t kThreadLevel = 1, kCoreLevel = 2, kDieLevel = 5;

// Here the level above a core's threads is the whole package.
CpuidRegs topology_leaf(const CpuSpec&, const CpuidDynamic& dynamic, uint32_t subleaf) {
  const CpuTopology& all = dynamic.topology;
  const Level levels[] = {{kThreadLevel, all.core_shift(), all.threads},
                          {kCoreLevel, all.socket_shift(), all.in_socket()}};
  return topology_level(levels, dynamic.apic_id, subleaf);
}

CpuidRegs die_topology_leaf(const CpuSpec&, const CpuidDynamic& dynamic, uint32_t subleaf) {
  const CpuTopology& all = dynamic.topology;
  if (all.dies == 1) return {};
  const Level levels[] = {{kThreadLevel, all.core_shift(), all.threads},
                          {kCoreLevel, all.die_shift(), all.in_die()},
                          {kDieLevel, all.socket_shift(), all.in_socket()}};
  return topology_level(levels, dynamic.apic_id, subleaf);
}

CpuidRegs frequency_leaf(const CpuSpec&, const CpuidDynamic& dynamic, uint32_t) {
  const auto mhz = static_cast<uint32_t>(std::min<uint64_t>(dynamic.tsc_hz / 1'000'000, 0xffff));
  return {.eax = mhz, .ebx = mhz, .ecx = mhz == 0 ? 0u : 100u, .edx = 0};
}

// --- extended leaves

CpuidRegs extended_0(const CpuSpec& spec, const CpuidDynamic&, uint32_t) {
  // [SDM 2A CPUID, table 3-8] Intel processors leave the vendor out.
  return vendor_leaf(spec.xlevel, is_intel(spec) ? std::string_view{} : std::string_view(spec.vendor));
}

CpuidRegs extended_1(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t) {
  CpuidRegs regs{.eax = spec.signature(),
                 .ebx = 0,
                 .ecx = word(spec, FeatureWord::k80000001Ecx),
                 .edx = word(spec, FeatureWord::k80000001Edx)};
  if (is_amd(spec)) {
    // [APM 3 E.4.2] These repeat CPUID.1:EDX; CmpLegacy tells that the logical processors are cores.
    constexpr uint32_t kRepeated = 0x0183f3ff, kApic = 1u << 9, kCmpLegacy = 1u << 1;
    regs.edx |= word(spec, FeatureWord::k1Edx) & kRepeated;
    if (!dynamic.apic_enabled) regs.edx &= ~kApic;
    if (dynamic.topology.in_socket() > 1) regs.ecx |= kCmpLegacy;
  }
  return regs;
}

CpuidRegs brand_leaf(const CpuSpec& spec, uint32_t leaf) {
  const size_t offset = (leaf - kExtended - 2) * 16;
  return {.eax = characters(spec.model_id, offset),
          .ebx = characters(spec.model_id, offset + 4),
          .ecx = characters(spec.model_id, offset + 8),
          .edx = characters(spec.model_id, offset + 12)};
}

CpuidRegs extended_7(const CpuSpec& spec, const CpuidDynamic&, uint32_t) {
  return {.eax = 0, .ebx = 0, .ecx = 0, .edx = word(spec, FeatureWord::k80000007Edx)};
}

CpuidRegs extended_8(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t) {
  CpuidRegs regs{.eax = 0, .ebx = word(spec, FeatureWord::k80000008Ebx), .ecx = 0, .edx = 0};
  if (spec.has(FeatureWord::k80000001Edx, 29))
    regs.eax = dynamic.physical_bits | uint32_t{dynamic.linear_bits} << 8;
  else
    regs.eax = spec.has(FeatureWord::k1Edx, 6) || spec.has(FeatureWord::k1Edx, 17) ? 36 : 32;
  constexpr uint32_t kLastRdpru = 1;  // APERF
  if (spec.has(FeatureWord::k80000008Ebx, 4)) regs.edx = kLastRdpru << 16;
  if (const CpuTopology& all = dynamic.topology; is_amd(spec) && all.in_socket() > 1)
    regs.ecx = all.socket_shift() << 12 | (std::min(all.in_socket(), 0x100u) - 1);
  return regs;
}

CpuidRegs extended_1d(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t subleaf) {
  return spec.has(FeatureWord::k80000001Ecx, 22) ? cache_parameters(dynamic, subleaf, false) : CpuidRegs{};
}

CpuidRegs extended_1e(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t) {
  if (!spec.has(FeatureWord::k80000001Ecx, 22)) return {};
  // [APM 3 E.4.16] The core within its socket and how many threads it has more; the die, of the machine's, and how many
  // more the socket has.
  const CpuTopology& all = dynamic.topology;
  const uint32_t core = (dynamic.apic_id & ((uint32_t{1} << all.socket_shift()) - 1)) >> all.core_shift();
  const uint32_t die =
      (dynamic.apic_id >> all.socket_shift()) * all.dies + (core >> (all.die_shift() - all.core_shift()));
  return {.eax = dynamic.apic_id,
          .ebx = (core & 0xff) | (std::min(all.threads, 0x100u) - 1) << 8,
          .ecx = (die & 0xff) | (std::min(all.dies, 8u) - 1) << 8,
          .edx = 0};
}

CpuidRegs intel_l2(const CpuSpec&, const CpuidDynamic&, uint32_t) {
  constexpr uint32_t kSixteenWays = 8;
  return {.eax = 0, .ebx = 0, .ecx = size_kib(kCaches[2]) << 16 | kSixteenWays << 12 | kLineSize, .edx = 0};
}

struct Row {
  uint32_t leaf;
  CpuidRegs (*answer)(const CpuSpec&, const CpuidDynamic&, uint32_t subleaf);
  enum : uint8_t { kAll, kAmdOnly, kIntelOnly } vendor = kAll;
};
constexpr Row kRows[] = {{0, leaf_0},
                         {1, leaf_1},
                         {2, leaf_2, Row::kIntelOnly},
                         {4, leaf_4, Row::kIntelOnly},
                         {5, leaf_5},
                         {6, leaf_6},
                         {7, leaf_7},
                         {0xb, topology_leaf},
                         {0xd, xsave_leaf},
                         {0x16, frequency_leaf, Row::kIntelOnly},
                         {kDieTopologyLeaf, die_topology_leaf, Row::kIntelOnly},
                         {0x80000000, extended_0},
                         {0x80000001, extended_1},
                         {0x80000005, amd_l1, Row::kAmdOnly},
                         {0x80000006, amd_l2, Row::kAmdOnly},
                         {0x80000006, intel_l2, Row::kIntelOnly},
                         {0x80000007, extended_7},
                         {0x80000008, extended_8},
                         {0x8000001d, extended_1d, Row::kAmdOnly},
                         {0x8000001e, extended_1e, Row::kAmdOnly}};

bool applies(const Row& row, const CpuSpec& spec) {
  return row.vendor == Row::kAll || (row.vendor == Row::kAmdOnly ? is_amd(spec) : !is_amd(spec));
}

}  // namespace

uint64_t supported_xcr0(const CpuSpec& spec) {
  if (!spec.has(FeatureWord::k1Ecx, 26)) return 0;
  uint64_t bits = 3;  // x87 and SSE
  for (const Component& part : kComponents)
    if (spec.has(part.word, part.feature)) bits |= uint64_t{1} << part.bit;
  return bits;
}

CpuidRegs cpuid(const CpuSpec& spec, const CpuidDynamic& dynamic, uint32_t leaf, uint32_t subleaf) {
  if ((leaf & 0xffffff00) == kHypervisor && spec.has(FeatureWord::k1Ecx, 31)) {
    if (leaf != kHypervisor) return {};
    constexpr std::string_view kSignature = "KiteKiteKite";
    return {.eax = kHypervisor,
            .ebx = characters(kSignature, 0),
            .ecx = characters(kSignature, 4),
            .edx = characters(kSignature, 8)};
  }
  const uint32_t last = leaf >= kExtended ? spec.xlevel : last_basic_leaf(spec, dynamic);
  if (leaf > last) {
    // [SDM 2A CPUID] An Intel processor answers with its highest basic leaf, an AMD one with zeroes.
    if (!is_intel(spec)) return {};
    leaf = last_basic_leaf(spec, dynamic);
  }
  if (leaf >= kExtended + 2 && leaf <= kExtended + 4) return brand_leaf(spec, leaf);
  for (const Row& row : kRows)
    if (row.leaf == leaf && applies(row, spec)) return row.answer(spec, dynamic, subleaf);
  return {};
}

}  // namespace kite::x86
