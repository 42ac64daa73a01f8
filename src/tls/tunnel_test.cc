#include "tls/tunnel.h"

#include <sys/socket.h>

#include "tls/test_certificates.h"

namespace kite::tls {
namespace {

using namespace testing_support;

const Credentials::Config kServer{.endpoint = Endpoint::kServer}, kClient{.endpoint = Endpoint::kClient};

std::pair<Fd, Fd> connected_sockets() {
  auto ends = std::move(*Tunnel::make_ends());
  return {std::move(ends[0]), std::move(ends[1])};
}

// One end of a connection, and the plain socket that leads to it.
struct End {
  std::unique_ptr<Tunnel> tunnel;
  Fd plain;
  bool ready = false, ended = false;
  std::string name, why;
};

// A server's and a client's end of one connection.
class TunnelTest : public ::testing::Test {
 protected:
  TunnelTest() { std::tie(wire_[0], wire_[1]) = connected_sockets(); }

  void start(End& end, Fd socket, const Result<std::shared_ptr<const Credentials>>& credentials,
             const std::string& host = "") {
    ASSERT_TRUE(credentials) << credentials.error().message;
    auto made = Tunnel::create({.executor = *executor_,
                                .clock = clock_,
                                .ready =
                                    [&end](const std::string& name) {
                                      auto [inner, outer] = connected_sockets();
                                      end.ready = true;
                                      end.name = name;
                                      end.plain = std::move(outer);
                                      end.tunnel->carry(std::move(inner));
                                    },
                                .ended =
                                    [&end](const Tunnel& tunnel, const std::string& why) {
                                      EXPECT_EQ(&tunnel, end.tunnel.get());
                                      end.ended = true;
                                      end.why = why;
                                      end.tunnel.reset();
                                    }},
                               std::move(socket), *credentials, host);
    ASSERT_TRUE(made) << made.error().message;
    end.tunnel = std::move(*made);
  }
  void serve(const Credentials::Config& config = kServer) { start(server_, std::move(wire_[0]), files_.load(config)); }
  void call(const Credentials::Config& config = kClient, const std::string& host = "") {
    start(client_, std::move(wire_[1]), files_.load(config), host);
  }
  template <class Condition>
  void turn_until(Condition condition) {
    for (int turn = 0; turn < 2000 && !condition(); ++turn) executor_->run_once(5'000'000);
    EXPECT_TRUE(condition());
  }
  void settle() {
    for (int turn = 0; turn < 50; ++turn) executor_->run_once(0);
  }
  void connect() {
    serve();
    call();
    turn_until([this] { return server_.ready && client_.ready; });
  }
  // What stands for a peer that does not keep to the protocol.
  void say(std::string_view bytes) {
    ASSERT_EQ(::send(wire_[1].get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }
  // As much as comes at once; "" at the end, or when there is nothing.
  static std::string take(const Fd& plain) {
    std::string bytes(4096, '\0');
    const ssize_t got = ::recv(plain.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return bytes;
  }
  static bool at_end(const Fd& plain) {
    char byte = 0;
    return ::recv(plain.get(), &byte, 1, MSG_DONTWAIT) == 0;
  }
  // Moves `text` through, and answers what comes out.
  std::string through(const Fd& from, const Fd& to, std::string_view text) {
    std::string got;
    const size_t whole = text.size();
    turn_until([&] {
      const ssize_t sent = ::send(from.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent > 0) text.remove_prefix(static_cast<size_t>(sent));
      for (std::string part = take(to); !part.empty(); part = take(to)) got += part;
      return got.size() >= whole;
    });
    return got;
  }

  const Certificates files_;
  ManualClock clock_;
  std::unique_ptr<Executor> executor_ = std::move(*Executor::create("test"));
  std::array<Fd, 2> wire_;
  End server_, client_;
};

TEST_F(TunnelTest, BytesArriveAsTheyWere) {
  connect();
  EXPECT_EQ(server_.name, "CN=client");
  EXPECT_EQ(client_.name, "CN=server");
  std::string much(1 << 20, '\0');
  for (size_t at = 0; at < much.size(); ++at) much[at] = static_cast<char>(at * 7 + at / 251);
  EXPECT_EQ(through(client_.plain, server_.plain, much), much);
  EXPECT_EQ(through(server_.plain, client_.plain, much), much);
}

TEST_F(TunnelTest, WhoClosesIsHeardOutFirst) {
  connect();
  ASSERT_EQ(::send(client_.plain.get(), "bye", 3, MSG_NOSIGNAL), 3);
  client_.plain.reset();
  std::string got;
  turn_until([&] {
    got += take(server_.plain);
    return client_.ended && at_end(server_.plain);
  });
  EXPECT_EQ(got, "bye");
  EXPECT_EQ(client_.why, "");
  EXPECT_FALSE(server_.ended);  // its own side may still speak
  server_.plain.reset();
  turn_until([this] { return server_.ended; });
}

TEST_F(TunnelTest, WhatNeitherSideTakesWaits) {
  connect();
  const std::string part(1 << 16, 'x');
  size_t sent = 0;
  for (int turn = 0; turn < 2000; ++turn) {
    const ssize_t took = ::send(client_.plain.get(), part.data(), part.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (took > 0) sent += static_cast<size_t>(took);
    executor_->run_once(0);
  }
  EXPECT_LT(sent, size_t{16} << 20);
  size_t got = 0;
  turn_until([&] {
    for (std::string piece = take(server_.plain); !piece.empty(); piece = take(server_.plain)) got += piece.size();
    return got == sent;
  });
}

TEST_F(TunnelTest, APeerThatTakesNothingIsLeftAlone) {
  connect();
  const std::string part(1 << 16, 'x');
  for (int turn = 0; turn < 200; ++turn) {
    ::send(client_.plain.get(), part.data(), part.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    executor_->run_once(0);
  }
  client_.plain.reset();
  settle();
  EXPECT_FALSE(client_.ended);
  clock_.advance(Tunnel::kLeaveNs);
  EXPECT_TRUE(client_.ended);
  EXPECT_NE(client_.why.find("does not take"), std::string::npos);
}

TEST_F(TunnelTest, AnEndThatGoesAwaySaysGoodbye) {
  connect();
  client_.tunnel.reset();
  turn_until([this] { return at_end(server_.plain); });
  EXPECT_FALSE(server_.ended);
}

// --- who is believed

TEST_F(TunnelTest, AServerRefusesAClientWithoutACertificate) {
  serve();
  files_.remove("client-cert.pem");
  files_.remove("client-key.pem");
  call();
  turn_until([this] { return server_.ended && (client_.ended || at_end(client_.plain)); });
  EXPECT_FALSE(server_.ready);
  EXPECT_NE(server_.why.find("verify-peer"), std::string::npos) << server_.why;
}

TEST_F(TunnelTest, AServerRefusesAStranger) {
  serve();
  const Identity namesake = make_identity({.name = "authority", .authority = true}, nullptr);
  files_.put("client", make_identity({.name = "stranger"}, &namesake));
  call({.endpoint = Endpoint::kClient, .sanity_check = false});
  turn_until([this] { return server_.ended; });
  EXPECT_FALSE(server_.ready);
  EXPECT_NE(server_.why.find("certificate is refused"), std::string::npos) << server_.why;
}

TEST_F(TunnelTest, AServerThatDoesNotAskTakesAnybody) {
  serve({.endpoint = Endpoint::kServer, .verify_peer = false});
  files_.remove("client-cert.pem");
  files_.remove("client-key.pem");
  call();
  turn_until([this] { return server_.ready && client_.ready; });
  EXPECT_EQ(server_.name, "");
}

TEST_F(TunnelTest, AClientWantsTheNameThatItCalled) {
  serve();
  call(kClient, "server.example");
  turn_until([this] { return server_.ready && client_.ready; });

  End wrong, other;
  auto [one, two] = connected_sockets();
  start(other, std::move(one), files_.load(kServer));
  start(wrong, std::move(two), files_.load(kClient), "other.example");
  turn_until([&] { return wrong.ended; });
  EXPECT_FALSE(wrong.ready);
  EXPECT_NE(wrong.why.find("another name"), std::string::npos) << wrong.why;
}

TEST_F(TunnelTest, KeysAndNoProofAtAllDoAsWell) {
  files_.write("keys.psk", "amy:0123456789abcdef\n");
  serve({.proof = Proof::kSharedKey, .endpoint = Endpoint::kServer});
  call({.proof = Proof::kSharedKey, .user = "amy"});
  turn_until([this] { return server_.ready && client_.ready; });
  EXPECT_EQ(through(client_.plain, server_.plain, "key"), "key");

  End server, client;
  auto [one, two] = connected_sockets();
  start(server, std::move(one), Credentials::load({.proof = Proof::kAnonymous, .endpoint = Endpoint::kServer}));
  start(client, std::move(two), Credentials::load({.proof = Proof::kAnonymous}));
  turn_until([&] { return server.ready && client.ready; });
  EXPECT_EQ(through(server.plain, client.plain, "none"), "none");
}

TEST_F(TunnelTest, AnotherKeyIsRefused) {
  files_.write("keys.psk", "amy:0123456789abcdef\n");
  serve({.proof = Proof::kSharedKey, .endpoint = Endpoint::kServer});
  const auto credentials = [] {
    const Certificates others;
    others.write("keys.psk", "amy:ffffffffffffffff\n");
    return others.load({.proof = Proof::kSharedKey, .user = "amy"});
  }();
  start(client_, std::move(wire_[1]), credentials);
  turn_until([this] { return server_.ended && client_.ended; });
  EXPECT_FALSE(server_.ready);
}

// --- hostile peers

TEST_F(TunnelTest, SilenceEnds) {
  serve();
  settle();
  clock_.advance(Tunnel::kHandshakeNs - 1);
  EXPECT_FALSE(server_.ended);
  clock_.advance(1);
  EXPECT_TRUE(server_.ended);
  EXPECT_NE(server_.why.find("too long"), std::string::npos);
}

TEST_F(TunnelTest, PlainTextIsRefused) {
  serve();
  say("GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n");
  turn_until([this] { return server_.ended; });
  EXPECT_NE(server_.why, "");
}

TEST_F(TunnelTest, HalfAHandshakeAndALeaveAreRefused) {
  serve();
  say(std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11));
  settle();
  EXPECT_FALSE(server_.ended);
  wire_[1].reset();
  turn_until([this] { return server_.ended; });
}

TEST_F(TunnelTest, RecordsThatAreTooLongAreRefused) {
  serve();
  say(std::string_view("\x16\x03\x01\xff\xff", 5));
  turn_until([this] { return server_.ended; });
}

// A client that is GnuTLS alone, and so can do what Session does not.
class RawClientTest : public TunnelTest {
 protected:
  RawClientTest() {
    start(server_, std::move(wire_[0]),
          Credentials::load({.proof = Proof::kAnonymous, .endpoint = Endpoint::kServer, .priority = kOld}));
    gnutls_anon_client_credentials_t credentials = nullptr;
    gnutls_session_t session = nullptr;
    check(gnutls_anon_allocate_client_credentials(&credentials));
    credentials_.reset(credentials);
    check(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL));
    session_.reset(session);
    check(gnutls_priority_set_direct(session, (kOld + ":+ANON-ECDH").c_str(), nullptr));
    check(gnutls_credentials_set(session, GNUTLS_CRD_ANON, credentials));
    gnutls_transport_set_int(session, wire_[1].get());
    int done = GNUTLS_E_AGAIN;
    turn_until([&] {
      if (done != GNUTLS_E_SUCCESS) done = gnutls_handshake(session);
      return done == GNUTLS_E_SUCCESS && server_.ready;
    });
  }
  static inline const std::string kOld = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
  Handle<gnutls_anon_client_credentials_st, gnutls_anon_free_client_credentials> credentials_;
  SessionHandle session_;
};

TEST_F(RawClientTest, NegotiatingAnewIsRefused) {
  gnutls_handshake(session_.get());
  turn_until([this] { return server_.ended; });
  EXPECT_NE(server_.why.find("anew"), std::string::npos) << server_.why;
}

TEST_F(RawClientTest, ARecordThatWasChangedEndsIt) {
  say(
      std::string_view("\x17\x03\x03\x00\x20"
                       "0123456789abcdef0123456789abcdef",
                       37));
  turn_until([this] { return server_.ended; });
  EXPECT_NE(server_.why, "");
  EXPECT_TRUE(take(server_.plain).empty());
}

TEST_F(RawClientTest, HalfARecordAndALeaveIsAnEnd) {
  say(
      std::string_view("\x17\x03\x03\x00\x20"
                       "0123",
                       9));
  wire_[1].reset();
  turn_until([this] { return server_.ended || at_end(server_.plain); });
  EXPECT_TRUE(take(server_.plain).empty());
}

}  // namespace
}  // namespace kite::tls
