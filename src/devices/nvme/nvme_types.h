// The types of NVMe: nvme (the controller, with a namespace of its own when it has a drive) and nvme-ns.
#pragma once

#include <memory>
#include <string>

#include "devices/nvme/nvme_controller.h"
#include "object/object_type.h"

namespace kite::devices {

void register_nvme_types(TypeRegistry& registry);

// -device nvme,serial=S[,drive=D]. `disk` is its own namespace's, whose drive may be null: then it has none. `express`:
// how it sits on a PCI Express bus; `persistent`: the memory that "pmrdev" names, or null.
Result<std::unique_ptr<NvmeController>> make_nvme_controller(std::string path, std::string bus_name,
                                                             const PropertyMap& properties, const DiskConfig& disk,
                                                             GuestMemory& memory, std::optional<bus::PcieType> express,
                                                             std::shared_ptr<RamBlock> persistent);

}  // namespace kite::devices
