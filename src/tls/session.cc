#include "tls/session.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "tls/handles.h"

namespace kite::tls {

struct Session::Library {
  std::shared_ptr<const Credentials> credentials;
  std::string host;  // the library keeps a pointer to it
  SessionHandle session;

  // Why the library gave up, as a person can use it.
  [[nodiscard]] std::string why(int status) const {
    gnutls_session_t own = session.get();
    if (status == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR)
      return fmt::format("the peer's certificate is refused: {}",
                         doubts_text(gnutls_session_get_verify_cert_status(own)));
    if (status == GNUTLS_E_FATAL_ALERT_RECEIVED) {
      const char* const name = gnutls_alert_get_name(gnutls_alert_get(own));
      return fmt::format("the peer refuses: {}", name == nullptr ? "unknown alert" : name);
    }
    if (status == GNUTLS_E_NO_CERTIFICATE_FOUND || status == GNUTLS_E_CERTIFICATE_REQUIRED)
      return "the peer shows no certificate, which verify-peer=on asks for";
    if (status == GNUTLS_E_PREMATURE_TERMINATION) return "the peer has left";
    if (status == GNUTLS_E_REHANDSHAKE || status == GNUTLS_E_REAUTH_REQUEST) return "the peer wants to negotiate anew";
    return gnutls_strerror(status);
  }
};

Session::Session(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Session> Session::start(std::shared_ptr<const Credentials> credentials, int socket, const std::string& host) {
  const bool server = credentials->endpoint() == Endpoint::kServer;
  gnutls_session_t made = nullptr;
  const unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL;
  if (const int done = gnutls_init(&made, flags | (server ? GNUTLS_SERVER : GNUTLS_CLIENT)); done < 0)
    return fail("TLS: {}", gnutls_strerror(done));
  auto library = std::make_unique<Library>(Library{std::move(credentials), host, SessionHandle(made)});
  KITE_TRY(library->credentials->use_for(made));
  const bool verifies = library->credentials->verifies_peer();
  if (server && library->credentials->proof() == Proof::kCertificate)
    gnutls_certificate_server_set_request(made, verifies ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
  const char* const name = library->host.empty() ? nullptr : library->host.c_str();
  if (verifies) gnutls_session_set_verify_cert(made, server ? nullptr : name, 0);
  // [RFC 6066] 3: a client says whom it wants, unless that is an address.
  in6_addr address{};
  if (!server && name != nullptr && ::inet_pton(AF_INET, name, &address) != 1 &&
      ::inet_pton(AF_INET6, name, &address) != 1)
    gnutls_server_name_set(made, GNUTLS_NAME_DNS, name, library->host.size());
  gnutls_transport_set_int(made, socket);
  return Session(std::move(library));
}

Result<bool> Session::shake_hands() {
  gnutls_session_t session = library_->session.get();
  const int done = gnutls_handshake(session);
  if (done == GNUTLS_E_SUCCESS) return true;
  if (gnutls_error_is_fatal(done) == 0) return false;
  gnutls_alert_send_appropriate(session, done);
  return fail("{}", library_->why(done));
}

std::string Session::peer_name() const {
  if (!library_->credentials->verifies_peer()) return {};
  unsigned count = 0;
  const gnutls_datum_t* const shown = gnutls_certificate_get_peers(library_->session.get(), &count);
  gnutls_x509_crt_t made = nullptr;
  if (shown == nullptr || count == 0 || gnutls_x509_crt_init(&made) < 0) return {};
  const CertificateHandle certificate(made);
  return gnutls_x509_crt_import(made, shown, GNUTLS_X509_FMT_DER) < 0 ? std::string{} : subject_of(made);
}

Result<std::optional<size_t>> Session::read(std::span<uint8_t> buffer) {
  const ssize_t got = gnutls_record_recv(library_->session.get(), buffer.data(), buffer.size());
  if (got >= 0) return static_cast<size_t>(got);
  const int status = static_cast<int>(got);
  // Many close the connection without a goodbye. What a stream carries has no end that could be cut off.
  if (status == GNUTLS_E_PREMATURE_TERMINATION) return size_t{0};
  // [RFC 5246] 7.4.1.1: negotiating anew may be refused. Nothing here needs it, and it has been a hole more than once.
  if (status == GNUTLS_E_REHANDSHAKE || status == GNUTLS_E_REAUTH_REQUEST || gnutls_error_is_fatal(status) != 0)
    return fail("{}", library_->why(status));
  return std::nullopt;
}

Result<std::optional<size_t>> Session::write(std::span<const uint8_t> bytes) {
  const ssize_t took = gnutls_record_send(library_->session.get(), bytes.data(), bytes.size());
  if (took >= 0) return static_cast<size_t>(took);
  if (gnutls_error_is_fatal(static_cast<int>(took)) == 0) return std::nullopt;
  return fail("{}", library_->why(static_cast<int>(took)));
}

Result<bool> Session::say_goodbye() {
  const int done = gnutls_bye(library_->session.get(), GNUTLS_SHUT_WR);
  if (done == GNUTLS_E_SUCCESS) return true;
  if (gnutls_error_is_fatal(done) == 0) return false;
  return fail("{}", library_->why(done));
}

bool Session::has_unread() const { return gnutls_record_check_pending(library_->session.get()) > 0; }
bool Session::wants_write() const { return gnutls_record_get_direction(library_->session.get()) == 1; }

}  // namespace kite::tls
