#include "tls/credentials.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>
#include <vector>

#include "support/fd.h"
#include "tls/certificate_check.h"
#include "tls/handles.h"

namespace kite::tls {

namespace {

constexpr size_t kMostBytes = 1 << 20;  // of a file
constexpr std::string_view kDhFile = "dh-params.pem", kKeysFile = "keys.psk";
constexpr gnutls_sec_param_t kDhStrength = GNUTLS_SEC_PARAM_MEDIUM;

// The whole file; nothing when there is none of this name.
Result<std::optional<std::string>> read_if_there(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid() && errno == ENOENT) return std::nullopt;
  if (!file.valid()) return fail("{}: {}", path, errno_text(errno));
  std::string text;
  std::array<char, 16384> piece{};
  while (text.size() <= kMostBytes) {
    const ssize_t got = ::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail("{}: {}", path, errno_text(errno));
    if (got == 0) return text;
    text.append(piece.data(), static_cast<size_t>(got));
  }
  return fail("{}: it has more than 1 MiB", path);
}

Result<std::string> read_file(const std::string& path) {
  KITE_ASSIGN(std::optional<std::string> text, read_if_there(path));
  if (!text) return fail("{}: {}", path, errno_text(ENOENT));
  return std::move(*text);
}

Result<> done_with(int status, std::string_view what) {
  if (status >= 0) return {};
  return fail("{}: {}", what, gnutls_strerror(status));
}

}  // namespace

std::string doubts_text(unsigned status) {
  constexpr std::pair<unsigned, std::string_view> kDoubts[] = {
      {GNUTLS_CERT_EXPIRED, "it has expired"},
      {GNUTLS_CERT_NOT_ACTIVATED, "it is not valid yet"},
      {GNUTLS_CERT_REVOKED, "it has been revoked"},
      {GNUTLS_CERT_SIGNER_NOT_FOUND, "its issuer is unknown"},
      {GNUTLS_CERT_SIGNER_NOT_CA, "its issuer is no authority"},
      {GNUTLS_CERT_SIGNATURE_FAILURE, "its signature is wrong"},
      {GNUTLS_CERT_INSECURE_ALGORITHM, "it is signed by an insecure algorithm"},
      {GNUTLS_CERT_UNEXPECTED_OWNER, "it is for another name"},
      {GNUTLS_CERT_PURPOSE_MISMATCH, "it is for another purpose"}};
  std::string text;
  for (const auto& [bit, doubt] : kDoubts)
    if ((status & bit) != 0) text += fmt::format("{}{}", text.empty() ? "" : "; ", doubt);
  return text.empty() ? "it is not valid" : text;
}

std::string subject_of(gnutls_x509_crt_t certificate) {
  gnutls_datum_t name{};
  if (gnutls_x509_crt_get_dn2(certificate, &name) < 0) return {};
  std::string text(reinterpret_cast<const char*>(name.data), name.size);
  gnutls_free(name.data);
  return text;
}

struct Credentials::Library {
  // One of these is there.
  Handle<gnutls_anon_server_credentials_st, gnutls_anon_free_server_credentials> anonymous_server;
  Handle<gnutls_anon_client_credentials_st, gnutls_anon_free_client_credentials> anonymous_client;
  Handle<gnutls_psk_server_credentials_st, gnutls_psk_free_server_credentials> keys_server;
  Handle<gnutls_psk_client_credentials_st, gnutls_psk_free_client_credentials> keys_client;
  Handle<gnutls_certificate_credentials_st, gnutls_certificate_free_credentials> certificates;

  Handle<gnutls_dh_params_int, gnutls_dh_params_deinit> dh;
  Handle<gnutls_priority_st, gnutls_priority_deinit> priority;
  CertificateList authorities;
};

Credentials::Credentials(Config config) : config_(std::move(config)), library_(std::make_unique<Library>()) {}

Credentials::~Credentials() = default;

std::string Credentials::path_of(std::string_view file) const { return fmt::format("{}/{}", config_.directory, file); }

Result<std::shared_ptr<const Credentials>> Credentials::load(Config config) {
  const std::shared_ptr<Credentials> made(new Credentials(std::move(config)));
  KITE_TRY(made->load_priority());
  switch (made->config_.proof) {
    case Proof::kAnonymous: KITE_TRY(made->load_anonymous()); break;
    case Proof::kSharedKey: KITE_TRY(made->load_shared_keys()); break;
    case Proof::kCertificate: KITE_TRY(made->load_certificates()); break;
  }
  if (made->endpoint() == Endpoint::kServer) KITE_TRY(made->load_dh_parameters());
  return made;
}

// GnuTLS does not offer what needs no certificate unless it is asked to.
Result<> Credentials::load_priority() {
  std::string text = config_.priority.empty() ? "NORMAL" : config_.priority;
  if (proof() == Proof::kAnonymous) text += ":+ANON-ECDH:+ANON-DH";
  if (proof() == Proof::kSharedKey) text += ":+ECDHE-PSK:+DHE-PSK:+PSK";
  gnutls_priority_t made = nullptr;
  const char* wrong = nullptr;
  if (gnutls_priority_init(&made, text.c_str(), &wrong) < 0)
    return fail("priority={}: GnuTLS does not know '{}'", config_.priority, wrong == nullptr ? text : wrong);
  library_->priority.reset(made);
  return {};
}

// Only what still uses finite fields needs them. [RFC 7919] has some that a client can check, which need no file.
Result<> Credentials::load_dh_parameters() {
  std::optional<std::string> text;
  if (!config_.directory.empty()) {
    KITE_ASSIGN(text, read_if_there(path_of(kDhFile)));
  }
  Library& library = *library_;
  if (!text) {
    if (library.anonymous_server)
      gnutls_anon_set_server_known_dh_params(library.anonymous_server.get(), kDhStrength);
    else if (library.keys_server)
      gnutls_psk_set_server_known_dh_params(library.keys_server.get(), kDhStrength);
    else
      gnutls_certificate_set_known_dh_params(library.certificates.get(), kDhStrength);
    return {};
  }
  gnutls_dh_params_t made = nullptr;
  KITE_TRY(done_with(gnutls_dh_params_init(&made), "TLS"));
  library.dh.reset(made);
  const gnutls_datum_t data = datum_of(*text);
  KITE_TRY(done_with(gnutls_dh_params_import_pkcs3(made, &data, GNUTLS_X509_FMT_PEM), path_of(kDhFile)));
  if (library.anonymous_server)
    gnutls_anon_set_server_dh_params(library.anonymous_server.get(), made);
  else if (library.keys_server)
    gnutls_psk_set_server_dh_params(library.keys_server.get(), made);
  else
    gnutls_certificate_set_dh_params(library.certificates.get(), made);
  return {};
}

Result<> Credentials::load_anonymous() {
  if (endpoint() == Endpoint::kServer) {
    gnutls_anon_server_credentials_t made = nullptr;
    KITE_TRY(done_with(gnutls_anon_allocate_server_credentials(&made), "TLS"));
    library_->anonymous_server.reset(made);
  } else {
    gnutls_anon_client_credentials_t made = nullptr;
    KITE_TRY(done_with(gnutls_anon_allocate_client_credentials(&made), "TLS"));
    library_->anonymous_client.reset(made);
  }
  return {};
}

Result<> Credentials::load_shared_keys() {
  if (config_.directory.empty()) return fail("dir= is missing: the directory that {} is in", kKeysFile);
  const std::string path = path_of(kKeysFile);
  if (endpoint() == Endpoint::kClient) return load_user_key(path);
  KITE_TRY(read_file(path));  // the library reads it when somebody comes, and says nothing before
  gnutls_psk_server_credentials_t made = nullptr;
  KITE_TRY(done_with(gnutls_psk_allocate_server_credentials(&made), "TLS"));
  library_->keys_server.reset(made);
  return done_with(gnutls_psk_set_server_credentials_file(made, path.c_str()), path);
}

Result<> Credentials::load_user_key(const std::string& path) {
  KITE_ASSIGN(const std::string text, read_file(path));
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (!line.starts_with(config_.user) || !line.substr(config_.user.size()).starts_with(':')) continue;
    std::string key(line.substr(config_.user.size() + 1));
    if (key.ends_with('\r')) key.pop_back();
    gnutls_psk_client_credentials_t made = nullptr;
    KITE_TRY(done_with(gnutls_psk_allocate_client_credentials(&made), "TLS"));
    library_->keys_client.reset(made);
    const gnutls_datum_t data = datum_of(key);
    return done_with(gnutls_psk_set_client_credentials(made, config_.user.c_str(), &data, GNUTLS_PSK_KEY_HEX),
                     fmt::format("{}: the key of '{}'", path, config_.user));
  }
  return fail("{}: it has no key for the user '{}' (username=)", path, config_.user);
}

Result<> Credentials::load_certificates() {
  if (config_.directory.empty()) return fail("dir= is missing: the directory that the certificates are in");
  gnutls_certificate_credentials_t made = nullptr;
  KITE_TRY(done_with(gnutls_certificate_allocate_credentials(&made), "TLS"));
  library_->certificates.reset(made);

  const std::string authorities = path_of("ca-cert.pem"), revoked = path_of("ca-crl.pem");
  KITE_ASSIGN(const std::string text, read_file(authorities));
  KITE_ASSIGN(library_->authorities, read_certificates(authorities, text));
  if (config_.sanity_check) KITE_TRY(check_authorities(library_->authorities));
  const gnutls_datum_t data = datum_of(text);
  KITE_TRY(done_with(gnutls_certificate_set_x509_trust_mem(made, &data, GNUTLS_X509_FMT_PEM), authorities));

  KITE_ASSIGN(const std::optional<std::string> list, read_if_there(revoked));
  if (list) {
    const gnutls_datum_t revocations = datum_of(*list);
    KITE_TRY(done_with(gnutls_certificate_set_x509_crl_mem(made, &revocations, GNUTLS_X509_FMT_PEM), revoked));
  }
  const bool server = endpoint() == Endpoint::kServer;
  return load_own_certificate(server ? "server" : "client", server);
}

Result<> Credentials::load_own_certificate(std::string_view name, bool required) {
  const std::string certificate_path = path_of(fmt::format("{}-cert.pem", name)),
                    key_path = path_of(fmt::format("{}-key.pem", name));
  KITE_ASSIGN(const std::optional<std::string> certificate, read_if_there(certificate_path));
  KITE_ASSIGN(const std::optional<std::string> key, read_if_there(key_path));
  if (!certificate && !key && !required) return {};
  for (const auto& [text, path] : {std::pair(&certificate, &certificate_path), std::pair(&key, &key_path)})
    if (!*text) return fail("{}: {}", *path, errno_text(ENOENT));

  KITE_ASSIGN(const CertificateList own, read_certificates(certificate_path, *certificate));
  gnutls_x509_privkey_t made = nullptr;
  KITE_TRY(done_with(gnutls_x509_privkey_init(&made), "TLS"));
  const KeyHandle owner(made);
  const gnutls_datum_t data = datum_of(*key);
  const char* const password = config_.key_password.empty() ? nullptr : config_.key_password.c_str();
  const int imported = gnutls_x509_privkey_import2(made, &data, GNUTLS_X509_FMT_PEM, password, 0);
  if (imported == GNUTLS_E_DECRYPTION_FAILED)
    return fail("{}: {}", key_path,
                password == nullptr ? "the key is encrypted; passwordid= names the -object secret that has its password"
                                    : "the password (passwordid=) does not fit");
  KITE_TRY(done_with(imported, key_path));

  if (config_.sanity_check) KITE_TRY(check_own(own, endpoint(), library_->authorities));
  std::vector<gnutls_x509_crt_t> chain = own.raw();
  const int used =
      gnutls_certificate_set_x509_key(library_->certificates.get(), chain.data(), static_cast<int>(chain.size()), made);
  if (used == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) return fail("{} is not the key of {}", key_path, certificate_path);
  return done_with(used, key_path);
}

Result<> Credentials::use_for(gnutls_session_int* session) const {
  const Library& library = *library_;
  KITE_TRY(done_with(gnutls_priority_set(session, library.priority.get()), "TLS"));
  int done = 0;
  if (library.anonymous_server)
    done = gnutls_credentials_set(session, GNUTLS_CRD_ANON, library.anonymous_server.get());
  else if (library.anonymous_client)
    done = gnutls_credentials_set(session, GNUTLS_CRD_ANON, library.anonymous_client.get());
  else if (library.keys_server)
    done = gnutls_credentials_set(session, GNUTLS_CRD_PSK, library.keys_server.get());
  else if (library.keys_client)
    done = gnutls_credentials_set(session, GNUTLS_CRD_PSK, library.keys_client.get());
  else
    done = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, library.certificates.get());
  return done_with(done, "TLS");
}

}  // namespace kite::tls
