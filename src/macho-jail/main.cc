// firn-macho-jail: looks into the Mach-O files that a build made, for the daemon, which never does so itself.
//
// Started by the daemon with a Unix socket as descriptor 0 and nothing else. Before the first request it
// gives up everything but computing and that socket; then files come through it, open, one after the other.

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <unistd.h>

#include "macho-jail/confine.hh"
#include "macho-jail/serve.hh"

namespace {

/// OpenSSL loads what an algorithm needs when it is first used, and would look for its configuration.
void prepareDigests() {
    OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
    unsigned char digest[EVP_MAX_MD_SIZE];
    for (const EVP_MD *algorithm : {EVP_sha1(), EVP_sha256(), EVP_sha384()}) {
        EVP_Digest("", 0, digest, nullptr, algorithm, nullptr);
    }
}

} // namespace

int main() {
    prepareDigests();
    firn::jail::confine();
    firn::jail::serve(0);
    _exit(0); // what libraries do at an end may need more calls than are left
}
