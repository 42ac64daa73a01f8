// CredentialsStore: what -object has named as credentials for TLS. Used by main/ and by those who open connections, on
// the executor's thread or before it runs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "object/object_type.h"
#include "tls/credentials.h"

namespace kite::tls {

// tls-creds-anon, tls-creds-psk, tls-creds-x509.
void register_types(TypeRegistry& registry);

class CredentialsStore {
 public:
  // Whether -object of this type is for here.
  [[nodiscard]] static bool knows(std::string_view type);
  // Reads the files. `key_password` is what passwordid= stands for, "" without it.
  Result<> add(std::string_view type, const std::string& id, const PropertyMap& properties,
               const std::string& key_password);
  Result<std::shared_ptr<const Credentials>> find(std::string_view id, Endpoint endpoint) const;

 private:
  std::map<std::string, std::shared_ptr<const Credentials>, std::less<>> known_;
};

}  // namespace kite::tls
