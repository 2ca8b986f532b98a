#include "libutil/hash.hh"

#include "unit/expect-error.hh"

namespace firn {
namespace {

struct Vector {
    std::string input;
    HashAlgorithm algorithm;
    const char *base16, *nix32, *base64;
};

// Printed by `nix-hash --flat` and `nix hash file` of Nix 2.8.0.
const Vector vectors[] = {
    {"", HashAlgorithm::md5, "d41d8cd98f00b204e9800998ecf8427e", "3y8bwfr609h3lh9ch0izcqq7fl",
     "1B2M2Y8AsgTpgAmY7PhCfg=="},
    {"", HashAlgorithm::sha1, "da39a3ee5e6b4b0d3255bfef95601890afd80709", "143xibwh31h9bvxzalr0sjvbbvpa6ffs",
     "2jmj7l5rSw0yVb/vlWAYkK/YBwk="},
    {"", HashAlgorithm::sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
     "0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="},
    {"", HashAlgorithm::sha512,
     "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931b"
     "d47417a81a538327af927da3e",
     "0zdl9zrg8r3i9c1g90lgg9ip5ijzv3yhz91i0zzn3r8ap9ws784gkp9dk9j3aglhgf1amqb0pj21mh7h1nxcl18akqvvf7ggqsy30y"
     "g",
     "z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="},
    {"abc", HashAlgorithm::md5, "900150983cd24fb0d6963f7d28e17f72", "3jgzhjhz9zjvbb0kyj7jc500ch",
     "kAFQmDzST7DWlj99KOF/cg=="},
    {"abc", HashAlgorithm::sha1, "a9993e364706816aba3e25717850c26c9cd0d89d",
     "kpcd173cq987hw957sx6m0868wv3x6d9", "qZk+NkcGgWq6PiVxeFDCbJzQ2J0="},
    {"abc", HashAlgorithm::sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
     "1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="},
    {"abc", HashAlgorithm::sha512,
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d442"
     "3643ce80e2a9ac94fa54ca49f",
     "2gs8k559z4rlahfx0y688s49m2vvszylcikrfinm30ly9rak69236nkam5ydvly1ai7xac99vxfc4ii84hawjbk876blyk1jfhkbby"
     "x",
     "3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="},
    {std::string(1000, 'q'), HashAlgorithm::md5, "eeff376d3cdf0eed91c5ffbd964dfc6d",
     "3dzi6rdggzqn8ys3nz7inkgzzf", "7v83bTzfDu2Rxf+9lk38bQ=="},
    {std::string(1000, 'q'), HashAlgorithm::sha1, "afee19b54f05fd60718367c028c89eeb056dd31f",
     "3z9ns1gbkv42ih37hdqn1z859ysikvmg", "r+4ZtU8F/WBxg2fAKMie6wVt0x8="},
    {std::string(1000, 'q'), HashAlgorithm::sha256,
     "2e6bba1f3cf48fe45fa1c56e25b47fb622dde50eba1e17e0a72464e32bf4ab41",
     "0hdbyhmy6r14lzh1f7ms1vjxs8mngys2avn5l5gy93zl7hgvlsrf", "Lmu6Hzz0j+RfocVuJbR/tiLd5Q66HhfgpyRk4yv0q0E="},
    {std::string(1000, 'q'), HashAlgorithm::sha512,
     "40faf11d9ba0c9fddfd493e7901abcdb6a5737adc16b6393267e2c09ed1ec8b7eb7bfdda532ab46948a34984c78f856cf340ef3"
     "907adc86bb76274a28817a10a",
     "05a25w8l9s65dvbr2nhffgg83rnr1cgqy24k8s8d6s2llyszmxypdy83vnhjb3y4s9n6sy1mlvmfsnvphd91rwkskgzvjd0kcfz3yj"
     "0",
     "QPrxHZugyf3f1JPnkBq822pXN63Ba2OTJn4sCe0eyLfre/3aUyq0aUijSYTHj4Vs80DvOQetyGu3YnSiiBehCg=="},
};

TEST(Hash, DigestsAreThoseOfStockNix) {
    for (const Vector &v : vectors) {
        Hash hash = hashString(v.algorithm, v.input);
        EXPECT_EQ(hash.digits(Encoding::base16), v.base16);
        EXPECT_EQ(hash.digits(Encoding::nix32), v.nix32);
        EXPECT_EQ(hash.digits(Encoding::base64), v.base64);
    }
}

TEST(Hash, EveryWrittenFormIsRead) {
    for (const Vector &v : vectors) {
        Hash hash = hashString(v.algorithm, v.input);
        std::string name(hashAlgorithmName(v.algorithm));
        for (std::string digits : {v.base16, v.nix32, v.base64}) {
            EXPECT_EQ(Hash::parse(digits, v.algorithm), hash);
            EXPECT_EQ(Hash::parse(name + ":" + digits), hash);
            EXPECT_EQ(Hash::parse(name + ":" + digits, v.algorithm), hash);
        }
        EXPECT_EQ(hash.sri(), name + "-" + v.base64);
        EXPECT_EQ(Hash::parse(hash.sri()), hash);
        EXPECT_EQ(hash.prefixed(Encoding::nix32), name + ":" + v.nix32);
    }
}

TEST(Hash, MalformedTextsAreRefused) {
    std::string digits = vectors[2].base16; // sha256
    for (std::string text :
         {std::string(), std::string("sha256:"), std::string("sha256-"), digits, "sha257:" + digits,
          "sha256-" + digits, "sha256:" + digits + "0", "sha256:" + digits.substr(1), "sha1:" + digits,
          ":" + digits, "SHA256:" + digits, "sha256:" + std::string(64, 'g'),
          "sha256:" + std::string(52, 'z'), "sha256-" + std::string(44, 'A')}) {
        expectError(ErrorKind::badInput, [&] { Hash::parse(text); });
    }
}

TEST(Hash, AnotherAlgorithmThanExpectedIsRefused) {
    std::string message = expectError(ErrorKind::badInput, [] {
        Hash::parse(std::string("md5:") + vectors[0].base16, HashAlgorithm::sha256);
    });
    EXPECT_NE(message.find("sha256"), std::string::npos);
}

TEST(Hash, DigestOfTheWrongSizeIsABug) {
    expectError(ErrorKind::bug, [] { Hash(HashAlgorithm::sha1, "short"); });
}

TEST(HashSink, GoesOnAfterItsCurrentDigestWasTaken) {
    HashSink sink(HashAlgorithm::sha256);
    EXPECT_EQ(sink.current().digits(Encoding::nix32), vectors[2].nix32);
    sink.write("a");
    Hash early = sink.current();
    sink.write("bc");
    EXPECT_EQ(sink.current().digits(Encoding::nix32), vectors[6].nix32);
    EXPECT_EQ(early, hashString(HashAlgorithm::sha256, "a"));
    EXPECT_EQ(sink.byteCount(), 3);
}

TEST(HashSink, CanBeMoved) {
    HashSink first(HashAlgorithm::md5);
    first.write("ab");
    HashSink second(std::move(first));
    second.write("c");
    EXPECT_EQ(second.current().digits(Encoding::base16), vectors[4].base16);
}

TEST(CompressDigest, FoldsByXor) {
    EXPECT_EQ(compressDigest("\x01\x02\x04\x08\x10", 2), "\x15\x0a");
    EXPECT_EQ(compressDigest("ab", 4), std::string("ab\0\0", 4));
    expectError(ErrorKind::bug, [] { compressDigest("ab", 0); });
}

} // namespace
} // namespace firn
