// EntropyRegistry: what -object has named as sources of random numbers. Used by main/, the boards and the monitor, on
// the executor's thread or before it runs; it outlives what it opens.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "entropy/entropy_source.h"
#include "object/object_type.h"

namespace kite::entropy {

class EntropyRegistry {
 public:
  explicit EntropyRegistry(Executor& executor) : executor_(executor) {}

  // Whether -object of this type is for here: rng-builtin, rng-random.
  [[nodiscard]] static bool knows(std::string_view type);
  // Its file is opened once, to see whether it can be.
  Result<> add(std::string_view type, const std::string& id, const PropertyMap& properties);
  // A source of a user's own; of the host kernel's generator with an id of "".
  Result<std::unique_ptr<EntropySource>> open(std::string_view id) const;

 private:
  Executor& executor_;
  std::map<std::string, std::string, std::less<>> files_;  // by id; "" for the kernel's generator
};

}  // namespace kite::entropy
