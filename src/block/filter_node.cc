#include "block/filter_node.h"

namespace kite::block {

Result<> FilterNode::attach(NodePtr below) {
  KITE_ASSIGN(file_, NodeUse::claim(std::move(below), fmt::format("node '{}'", name()),
                                    {.need = 0, .shared = Permissions::kAll}));
  return {};
}

Result<> FilterNode::set_permissions(uint32_t need, uint32_t shared) { return file_.change({need, shared}); }

Task<Result<>> FilterNode::do_set_read_only(bool read_only) {
  if (!read_only) KITE_CO_TRY(co_await file_->set_read_only(false));
  config_.read_only = read_only;
  co_return Result<>{};
}

}  // namespace kite::block
