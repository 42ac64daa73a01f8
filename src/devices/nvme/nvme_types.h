// The types of NVMe: nvme (the controller, with a namespace of its own when it has a drive) and nvme-ns.
#pragma once

#include <memory>
#include <string>

#include "devices/nvme/nvme_controller.h"
#include "object/object_type.h"

namespace kite::devices {

void register_nvme_types(TypeRegistry& registry);

// -device nvme,serial=S[,drive=D]. `drive` is what the property "drive" names, or null; `express`: how it sits on a PCI
// Express bus.
Result<std::unique_ptr<NvmeController>> make_nvme_controller(std::string path, std::string id,
                                                             const PropertyMap& properties, block::Drive* drive,
                                                             GuestMemory& memory, std::optional<bus::PcieType> express);

}  // namespace kite::devices
