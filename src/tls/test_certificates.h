// For tests of TLS: certificates that are made for the occasion, in a directory of their own.
#pragma once

#include <gtest/gtest.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>

#include "tls/credentials.h"
#include "tls/handles.h"

namespace kite::tls::testing_support {

// What is written into one certificate. Times are seconds from now.
struct Subject {
  std::string name;
  bool authority = false;
  int64_t begin = -3600, end = 3600;
  unsigned usage = 0;        // GNUTLS_KEY_*, critical; 0: it says nothing
  std::string purpose = {};  // an object identifier, critical; "": it says nothing
  std::string host = {};     // a name that it is for
};

struct Identity {
  CertificateHandle certificate;
  KeyHandle key;
};

inline void check(int status) { ASSERT_GE(status, 0) << gnutls_strerror(status); }

// Signed by `issuer`, by itself where there is none.
inline Identity make_identity(const Subject& subject, const Identity* issuer) {
  gnutls_x509_privkey_t key = nullptr;
  gnutls_x509_crt_t made = nullptr;
  check(gnutls_x509_privkey_init(&key));
  check(gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
  check(gnutls_x509_crt_init(&made));
  static unsigned char serial = 0;
  ++serial;
  const time_t now = ::time(nullptr);
  check(gnutls_x509_crt_set_version(made, 3));
  check(gnutls_x509_crt_set_serial(made, &serial, sizeof serial));
  check(gnutls_x509_crt_set_key(made, key));
  check(gnutls_x509_crt_set_dn(made, ("CN=" + subject.name).c_str(), nullptr));
  check(gnutls_x509_crt_set_activation_time(made, now + subject.begin));
  check(gnutls_x509_crt_set_expiration_time(made, now + subject.end));
  check(gnutls_x509_crt_set_basic_constraints(made, subject.authority ? 1 : 0, -1));
  if (subject.usage != 0) check(gnutls_x509_crt_set_key_usage(made, subject.usage));
  if (!subject.purpose.empty()) check(gnutls_x509_crt_set_key_purpose_oid(made, subject.purpose.c_str(), 1));
  if (!subject.host.empty())
    check(gnutls_x509_crt_set_subject_alt_name(made, GNUTLS_SAN_DNSNAME, subject.host.data(),
                                               static_cast<unsigned>(subject.host.size()), GNUTLS_FSAN_SET));
  check(gnutls_x509_crt_sign2(made, issuer == nullptr ? made : issuer->certificate.get(),
                              issuer == nullptr ? key : issuer->key.get(), GNUTLS_DIG_SHA256, 0));
  return {CertificateHandle(made), KeyHandle(key)};
}

inline std::string pem_of(const Identity& identity, bool key) {
  gnutls_datum_t text{};
  if (key)
    check(gnutls_x509_privkey_export2(identity.key.get(), GNUTLS_X509_FMT_PEM, &text));
  else
    check(gnutls_x509_crt_export2(identity.certificate.get(), GNUTLS_X509_FMT_PEM, &text));
  std::string pem(reinterpret_cast<const char*>(text.data), text.size);
  gnutls_free(text.data);
  return pem;
}

// An authority, and what it vouches for: a server and a client that are called so.
class Certificates {
 public:
  Certificates() {
    std::string name = testing::TempDir() + "kite_tls_XXXXXX";
    directory_ = ::mkdtemp(name.data());
    write("ca-cert.pem", pem_of(authority_, false));
    issue("server", {.name = "server", .host = "server.example"});
    issue("client", {.name = "client"});
  }
  ~Certificates() { std::filesystem::remove_all(directory_); }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;

  void write(const std::string& file, const std::string& text) const { std::ofstream(directory_ + "/" + file) << text; }
  void remove(const std::string& file) const { std::filesystem::remove(directory_ + "/" + file); }
  // As "server" or "client".
  void issue(const std::string& end, const Subject& subject) const { put(end, make_identity(subject, &authority_)); }
  void put(const std::string& end, const Identity& identity) const {
    write(end + "-cert.pem", pem_of(identity, false));
    write(end + "-key.pem", pem_of(identity, true));
  }
  [[nodiscard]] const std::string& directory() const { return directory_; }
  [[nodiscard]] Result<std::shared_ptr<const Credentials>> load(Credentials::Config config) const {
    config.directory = directory_;
    return Credentials::load(std::move(config));
  }
  // What is refused, without the directory's name; "" when it is not.
  [[nodiscard]] std::string refusal(Credentials::Config config) const {
    const auto loaded = load(std::move(config));
    std::string text = loaded ? "" : loaded.error().message;
    for (size_t at = text.find(directory_); at != std::string::npos; at = text.find(directory_))
      text.erase(at, directory_.size() + 1);
    return text;
  }

 private:
  std::string directory_;
  const Identity authority_ = make_identity({.name = "authority", .authority = true}, nullptr);
};

}  // namespace kite::tls::testing_support
