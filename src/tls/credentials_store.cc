#include "tls/credentials_store.h"

#include <algorithm>
#include <vector>

#include "support/suggest.h"

namespace kite::tls {

namespace {

struct Kind {
  std::string_view type;
  Proof proof;
};
constexpr Kind kKinds[] = {{"tls-creds-anon", Proof::kAnonymous},
                           {"tls-creds-psk", Proof::kSharedKey},
                           {"tls-creds-x509", Proof::kCertificate}};

constexpr std::string_view name_of(Endpoint endpoint) { return endpoint == Endpoint::kServer ? "server" : "client"; }

ObjectType credentials_type(std::string name, std::string description, std::vector<Property> properties) {
  return {.name = std::move(name),
          .parent = "tls-creds",
          .description = std::move(description),
          .bus = "",
          .properties = std::move(properties)};
}

}  // namespace

void register_types(TypeRegistry& registry) {
  registry.add({.name = "tls-creds",
                .parent = "object",
                .description = "What a TLS connection proves itself with, and believes",
                .bus = "",
                .abstract = true,
                .user_creatable = false,
                .properties = {
                    property::string("dir", "the directory of the files, and of dh-params.pem where there is one"),
                    property::choice("endpoint", "which end it is for", "client", {"client", "server"}),
                    property::boolean("verify-peer", "the other end has to prove who it is", true),
                    property::string("priority", "protocols and ciphers as GnuTLS's priority strings name them"),
                }});
  registry.add(credentials_type("tls-creds-anon", "TLS without proof: only those who just listen are kept out", {}));
  registry.add(credentials_type("tls-creds-psk", "TLS with keys that both ends have, in keys.psk",
                                {property::string("username", "whose key a client takes", "qemu")}));
  registry.add(credentials_type(
      "tls-creds-x509", "TLS with certificates: ca-cert.pem, ca-crl.pem, server- or client-cert.pem and -key.pem",
      {property::boolean("sanity-check", "what peers would refuse in them is an error at once", true),
       property::string("passwordid", "the -object secret that the private key is encrypted with")}));
}

bool CredentialsStore::knows(std::string_view type) {
  return std::ranges::find(kKinds, type, &Kind::type) != std::end(kKinds);
}

Result<> CredentialsStore::add(std::string_view type, const std::string& id, const PropertyMap& properties,
                               const std::string& key_password) {
  if (id.empty()) return fail("-object {}: give it an id, as id=tls0", type);
  if (known_.contains(id)) return fail("-object {}: the id '{}' is taken", type, id);
  auto loaded = Credentials::load(
      {.proof = std::ranges::find(kKinds, type, &Kind::type)->proof,
       .endpoint = properties.string("endpoint") == name_of(Endpoint::kServer) ? Endpoint::kServer : Endpoint::kClient,
       .directory = properties.string("dir"),
       .priority = properties.string("priority"),
       .key_password = key_password,
       .user = properties.string("username"),
       .verify_peer = properties.boolean("verify-peer"),
       .sanity_check = properties.boolean("sanity-check")});
  if (!loaded) return fail("-object {},id={}: {}", type, id, loaded.error().message);
  known_.emplace(id, std::move(*loaded));
  return {};
}

Result<std::shared_ptr<const Credentials>> CredentialsStore::find(std::string_view id, Endpoint endpoint) const {
  const auto found = known_.find(id);
  if (found == known_.end()) {
    std::vector<std::string_view> names;
    for (const auto& [name, credentials] : known_) names.push_back(name);
    return fail("tls-creds={}: there is no -object tls-creds-x509, -anon or -psk with this id{}", id,
                suggestion(id, names));
  }
  if (found->second->endpoint() != endpoint)
    return fail("tls-creds={}: it is for a {}; give the -object endpoint={}", id, name_of(found->second->endpoint()),
                name_of(endpoint));
  return found->second;
}

}  // namespace kite::tls
