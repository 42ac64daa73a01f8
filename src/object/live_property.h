// LiveProperty: what something that exists shows of itself by a name, and what of that can be changed while it lives:
// the monitor's qom-get and qom-set. (A Property of an ObjectType is what it is made with.)
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "support/result.h"

namespace kite {

struct LiveProperty {
  std::string name;
  std::string type;  // as qom-list shows it: "int", "bool", "str"
  std::string description;
  std::function<nlohmann::json()> get;
  std::function<Result<>(const nlohmann::json& value)> set = {};  // empty: it cannot be written
};

}  // namespace kite
