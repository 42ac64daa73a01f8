#include "devices/virtio/virtio_rng_types.h"

namespace kite::devices {

void register_virtio_rng_types(TypeRegistry& registry) {
  constexpr uint64_t kUnlimited = INT64_MAX, kLongestPeriod = UINT32_MAX;
  add_virtio_pci_types(
      registry, "virtio-rng-pci", "virtio random number generator",
      {property::link("rng", "the -object rng-random or rng-builtin that it takes numbers from; the host's generator",
                      "rng-backend"),
       property::unsigned_integer("max-bytes", "bytes that the guest gets in a period", kUnlimited, 1, kUnlimited),
       property::unsigned_integer("period", "milliseconds", 65536, 1, kLongestPeriod)});
  add_short_virtio_name(registry, "virtio-rng");
  registry.add({.name = "rng-builtin",
                .parent = "object",
                .description = "Random numbers of the host kernel's generator",
                .bus = "",
                .properties = {}});
  registry.add({.name = "rng-random",
                .parent = "object",
                .description = "Random numbers from a file",
                .bus = "",
                .properties = {property::string("filename", "the file, mostly a character device", "/dev/urandom")}});
}

Result<std::unique_ptr<VirtioPci>> make_virtio_rng(std::string_view type, const std::string& path,
                                                   const PropertyMap& properties, const bus::PciBus& pci,
                                                   std::unique_ptr<entropy::EntropySource> source, Clock& clock,
                                                   GuestMemory& memory, Executor& home) {
  const uint64_t most = properties.integer("max-bytes");
  const VirtioRng::Config config{
      .name = path, .max_bytes = most == INT64_MAX ? UINT64_MAX : most, .period_ms = properties.integer("period")};
  constexpr uint16_t kVectors = 2;  // configuration, and the queue
  KITE_ASSIGN(VirtioPci::Config transport, make_virtio_pci_config(type, properties, pci, kVectors));
  transport.legacy_device_id = virtio_rng::kLegacyDeviceId;
  transport.class_code = virtio_rng::kClass;
  auto device =
      std::make_unique<VirtioRng>(config, std::move(source), clock, memory, home, make_virtio_options(properties));
  return std::make_unique<VirtioPci>(path, transport, std::move(device));
}

}  // namespace kite::devices
