#include "block/filter_node.h"

namespace kite::block {

Result<> FilterNode::attach(NodePtr below) {
  KITE_ASSIGN(file_, NodeUse::claim(std::move(below), fmt::format("node '{}'", name()),
                                    {.need = 0, .shared = Permissions::kAll}));
  return {};
}

Result<> FilterNode::set_permissions(uint32_t need, uint32_t shared) { return file_.change({need, shared}); }

}  // namespace kite::block
