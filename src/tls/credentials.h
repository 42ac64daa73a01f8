// Credentials: who one end of a TLS connection says it is, and whom it believes at the other end. Files have the names
// that QEMU gives them. They are read once, when this is made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "support/result.h"

struct gnutls_session_int;

namespace kite::tls {

enum class Endpoint : uint8_t { kServer, kClient };
enum class Proof : uint8_t {
  kAnonymous,    // none: what is said is hidden from those who only listen
  kSharedKey,    // keys.psk: a line "USER:KEY in hexadecimal" each
  kCertificate,  // ca-cert.pem, ca-crl.pem, server-cert.pem, server-key.pem, client-cert.pem, client-key.pem
};

class Credentials {
 public:
  struct Config {
    Proof proof = Proof::kCertificate;
    Endpoint endpoint = Endpoint::kClient;
    std::string directory{};     // of the files; a server looks for dh-params.pem there, too
    std::string priority{};      // as GnuTLS writes it; "" for its own choice
    std::string key_password{};  // of the private key; "" when it is not encrypted
    std::string user{};          // with kSharedKey, of a client
    bool verify_peer = true;     // with kCertificate: the other end has to show one that ca-cert.pem vouches for
    bool sanity_check = true;    // with kCertificate: what others would refuse in our own is an error here
  };

  // The error says which file is wrong, and why.
  static Result<std::shared_ptr<const Credentials>> load(Config config);
  ~Credentials();
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;

  // Any thread, these.
  [[nodiscard]] Endpoint endpoint() const { return config_.endpoint; }
  [[nodiscard]] Proof proof() const { return config_.proof; }
  [[nodiscard]] bool verifies_peer() const { return config_.proof == Proof::kCertificate && config_.verify_peer; }

 private:
  friend class Session;
  struct Library;  // keeps the library's names out of this header

  explicit Credentials(Config config);
  Result<> load_anonymous();
  Result<> load_shared_keys();
  Result<> load_user_key(const std::string& path);
  Result<> load_certificates();
  Result<> load_own_certificate(std::string_view name, bool required);
  Result<> load_priority();
  Result<> load_dh_parameters();
  [[nodiscard]] std::string path_of(std::string_view file) const;
  Result<> use_for(gnutls_session_int* session) const;

  const Config config_;
  std::unique_ptr<Library> library_;
};

}  // namespace kite::tls
