#include "tls/credentials.h"

#include "tls/credentials_store.h"
#include "tls/test_certificates.h"

namespace kite::tls {
namespace {

using namespace testing_support;

const Credentials::Config kServer{.endpoint = Endpoint::kServer}, kClient{.endpoint = Endpoint::kClient};

TEST(CertificatesOfOurs, AreReadForEitherEnd) {
  const Certificates files;
  EXPECT_EQ(files.refusal(kServer), "");
  EXPECT_EQ(files.refusal(kClient), "");
}

TEST(CertificatesOfOurs, AServerNeedsAllOfThemAClientOnlyTheAuthority) {
  const Certificates files;
  files.remove("client-cert.pem");
  EXPECT_EQ(files.refusal(kClient), "client-cert.pem: No such file or directory");
  files.remove("client-key.pem");
  EXPECT_EQ(files.refusal(kClient), "");
  files.remove("server-key.pem");
  EXPECT_EQ(files.refusal(kServer), "server-key.pem: No such file or directory");
  files.remove("ca-cert.pem");
  EXPECT_EQ(files.refusal(kClient), "ca-cert.pem: No such file or directory");
}

TEST(CertificatesOfOurs, GarbageIsNamed) {
  const Certificates files;
  for (const std::string name : {"dh-params.pem", "server-key.pem", "server-cert.pem", "ca-crl.pem", "ca-cert.pem"}) {
    files.write(name, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    EXPECT_TRUE(files.refusal(kServer).starts_with(name + ": ")) << files.refusal(kServer);
  }
}

TEST(CertificatesOfOurs, AKeyOfAnotherIsNamed) {
  const Certificates files;
  files.write("server-key.pem", pem_of(make_identity({.name = "other"}, nullptr), true));
  EXPECT_EQ(files.refusal(kServer).find("server-key.pem is not the key of "), 0U) << files.refusal(kServer);
}

TEST(CertificatesOfOurs, WhatPeersWouldRefuseIsRefused) {
  const Certificates files;
  const auto refused = [&files](const Subject& subject) {
    files.issue("server", subject);
    const std::string why = files.refusal(kServer);
    Credentials::Config unchecked = kServer;
    unchecked.sanity_check = false;
    EXPECT_EQ(files.refusal(unchecked), "");
    return why;
  };
  EXPECT_NE(refused({.name = "old", .begin = -3600, .end = -1800}).find("has expired"), std::string::npos);
  EXPECT_NE(refused({.name = "new", .begin = 1800, .end = 3600}).find("not valid yet"), std::string::npos);
  EXPECT_NE(refused({.name = "ca", .authority = true}).find("that of an authority"), std::string::npos);
  EXPECT_NE(refused({.name = "sign", .usage = GNUTLS_KEY_CRL_SIGN}).find("key usage"), std::string::npos);
  EXPECT_NE(refused({.name = "c", .purpose = GNUTLS_KP_TLS_WWW_CLIENT}).find("a TLS server"), std::string::npos);
  EXPECT_EQ(refused({.name = "s", .usage = GNUTLS_KEY_DIGITAL_SIGNATURE, .purpose = GNUTLS_KP_TLS_WWW_SERVER}), "");
}

TEST(CertificatesOfOurs, ThoseOfAnotherAuthorityAreRefused) {
  const Certificates files;
  files.put("server", make_identity({.name = "stranger"}, nullptr));
  EXPECT_NE(files.refusal(kServer).find("ca-cert.pem does not vouch for it"), std::string::npos);
  files.write("ca-cert.pem", pem_of(make_identity({.name = "nobody"}, nullptr), false));
  EXPECT_NE(files.refusal(kServer).find("not that of an authority"), std::string::npos);
}

TEST(CertificatesOfOurs, AnEncryptedKeyWantsItsPassword) {
  const Certificates files;
  const Identity own = make_identity({.name = "locked"}, nullptr);
  files.put("server", own);
  std::string pem(8192, '\0');
  size_t length = pem.size();
  check(gnutls_x509_privkey_export_pkcs8(own.key.get(), GNUTLS_X509_FMT_PEM, "sesame", GNUTLS_PKCS_PBES2_AES_128,
                                         pem.data(), &length));
  files.write("server-key.pem", pem.substr(0, length));
  Credentials::Config config{.endpoint = Endpoint::kServer, .sanity_check = false};
  EXPECT_NE(files.refusal(config).find("passwordid= names"), std::string::npos) << files.refusal(config);
  config.key_password = "wrong";
  EXPECT_NE(files.refusal(config).find("does not fit"), std::string::npos) << files.refusal(config);
  config.key_password = "sesame";
  EXPECT_EQ(files.refusal(config), "");
}

TEST(SharedKeys, AClientFindsItsOwn) {
  const Certificates files;
  const Credentials::Config client{.proof = Proof::kSharedKey, .user = "amy"};
  EXPECT_EQ(files.refusal(client), "keys.psk: No such file or directory");
  files.write("keys.psk", "amyx:00\namy:0123456789abcdef\n");
  EXPECT_EQ(files.refusal(client), "");
  EXPECT_EQ(files.refusal({.proof = Proof::kSharedKey, .endpoint = Endpoint::kServer}), "");
  EXPECT_NE(files.refusal({.proof = Proof::kSharedKey, .user = "am"}).find("no key for the user 'am'"),
            std::string::npos);
  files.write("keys.psk", "amy:nothex\n");
  EXPECT_TRUE(files.refusal(client).starts_with("keys.psk: the key of 'amy'")) << files.refusal(client);
}

TEST(Priorities, UnknownOnesAreNamed) {
  const auto made = Credentials::load({.proof = Proof::kAnonymous, .priority = "NORMAL:+NOTHING-LIKE-IT"});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message.find("NOTHING-LIKE-IT"), std::string::npos) << made.error().message;
}

class CredentialsStoreTest : public ::testing::Test {
 protected:
  CredentialsStoreTest() {
    types_.add({.name = "object", .parent = "", .description = "", .bus = "", .properties = {}});
    register_types(types_);
  }
  std::string add(const std::string& text) {
    const auto options = parse_object_options(text, "qom-type");
    const auto properties = types_.resolve(*options, "-object");
    if (!properties) return properties.error().message;
    const auto done = store_.add(options->type, options->id, *properties, "");
    return done ? "" : done.error().message;
  }
  std::string missing(std::string_view id, Endpoint endpoint) {
    const auto found = store_.find(id, endpoint);
    return found ? "" : found.error().message;
  }
  TypeRegistry types_;
  CredentialsStore store_;
};

TEST_F(CredentialsStoreTest, KnowsThemByIdAndEnd) {
  EXPECT_EQ(add("tls-creds-anon,id=tls0,endpoint=server"), "");
  EXPECT_EQ(missing("tls0", Endpoint::kServer), "");
  EXPECT_NE(missing("tls0", Endpoint::kClient).find("endpoint=client"), std::string::npos);
  EXPECT_NE(missing("tls1", Endpoint::kServer).find("'tls0'"), std::string::npos);
}

TEST_F(CredentialsStoreTest, NamesWhatIsWrong) {
  EXPECT_EQ(add("tls-creds-anon,id=a"), "");
  EXPECT_NE(add("tls-creds-anon,id=a").find("is taken"), std::string::npos);
  EXPECT_NE(add("tls-creds-x509,id=b").find("dir= is missing"), std::string::npos);
  EXPECT_NE(add("tls-creds-x509,id=b,dir=/nonexistent").find("/nonexistent/ca-cert.pem"), std::string::npos);
  EXPECT_NE(add("tls-creds-x509,id=b,endpoint=both").find("both"), std::string::npos);
  EXPECT_NE(add("tls-creds-x509,id=b,verify-pear=on").find("verify-peer"), std::string::npos);
}

}  // namespace
}  // namespace kite::tls
