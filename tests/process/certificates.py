"""Certificates for tests of TLS, made for the occasion: an authority's, a server's, a client's, and a stranger's."""
import os
import ssl
import subprocess

CONFIG = """
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
[server]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature,keyEncipherment
extendedKeyUsage = critical,serverAuth
subjectAltName = DNS:localhost,IP:127.0.0.1
[client]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,clientAuth
"""


class Certificates:
    """The files in `folder` have the names that -object tls-creds-x509,dir= looks for; the stranger's are in a folder
    of its own in there, signed by an authority that calls itself the same."""

    def __init__(self, folder):
        self.folder, self.stranger = str(folder), f"{folder}/stranger"
        for place in (self.folder, self.stranger):
            os.makedirs(place, exist_ok=True)
            with open(f"{place}/config", "w", encoding="ascii") as file:
                file.write(CONFIG)
            self._make(place, "ca", "authority", "/CN=Kite tests")
            self._make(place, "client", "client", "/CN=client", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem")
        self._make(self.folder, "server", "server", "/CN=server", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem")

    @staticmethod
    def _make(place, name, kind, subject, *signer):
        subprocess.run(["openssl", "req", "-x509", "-config", "config", "-extensions", kind, "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", subject, "-keyout",
                        f"{name}-key.pem", "-out", f"{name}-cert.pem", *signer],
                       cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def client(self, certificates=""):
        """A context that believes the authority, and shows what is in the folder `certificates`, "" for nothing."""
        context = ssl.create_default_context(cafile=f"{self.folder}/ca-cert.pem")
        if certificates:
            context.load_cert_chain(f"{certificates}/client-cert.pem", f"{certificates}/client-key.pem")
        return context

    def server(self):
        """A context that wants a certificate of its clients."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{self.folder}/ca-cert.pem")
        context.load_cert_chain(f"{self.folder}/server-cert.pem", f"{self.folder}/server-key.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context
