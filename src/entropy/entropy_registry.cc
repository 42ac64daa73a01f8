#include "entropy/entropy_registry.h"

#include <vector>

#include "support/suggest.h"

namespace kite::entropy {

bool EntropyRegistry::knows(std::string_view type) { return type == "rng-builtin" || type == "rng-random"; }

Result<> EntropyRegistry::add(std::string_view type, const std::string& id, const PropertyMap& properties) {
  if (id.empty()) return fail("-object {}: give it an id, as id=rng0", type);
  if (files_.contains(id)) return fail("-object {}: the id '{}' is taken", type, id);
  const std::string file = type == "rng-random" ? properties.string("filename") : "";
  if (type == "rng-random") {
    if (file.empty()) return fail("-object rng-random: filename= names no file; leave it out for /dev/urandom");
    if (const auto opened = FileSource::open(file, executor_); !opened)
      return fail("-object rng-random: {}", opened.error().message);
  }
  files_.emplace(id, file);
  return {};
}

Result<std::unique_ptr<EntropySource>> EntropyRegistry::open(std::string_view id) const {
  const auto found = files_.find(id);
  if (found == files_.end() && !id.empty()) {
    std::vector<std::string_view> names;
    for (const auto& [name, file] : files_) names.push_back(name);
    return fail("there is no -object rng-random or rng-builtin with the id '{}'{}", id, suggestion(id, names));
  }
  if (id.empty() || found->second.empty()) return std::make_unique<KernelSource>();
  KITE_ASSIGN(std::unique_ptr<EntropySource> file, FileSource::open(found->second, executor_));
  return file;
}

}  // namespace kite::entropy
