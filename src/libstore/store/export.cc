#include "libstore/store/incoming.hh"
#include "libutil/error.hh"

// The stream of `nix-store --export`: for each path a one, the NAR, a magic number, path, references, deriver
// (or an empty string), and a zero where old versions had a signature; at the end a zero. Numbers are 64-bit
// little-endian, strings as in a NAR.

namespace firn {

namespace {

constexpr uint64_t exportMagic = 0x4558494e; // "NIXE"
constexpr uint64_t pathTextLimit = 4096;
constexpr uint64_t referencesLimit = 1'000'000;

void writeNumber(Sink &sink, uint64_t number) {
    char bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = static_cast<char>(number >> (8 * i));
    }
    sink.write({bytes, sizeof bytes});
}

void writeString(Sink &sink, std::string_view text) {
    static constexpr char zeros[8] = {};
    writeNumber(sink, text.size());
    sink.write(text);
    sink.write({zeros, (8 - text.size() % 8) % 8});
}

uint64_t readNumber(Source &source) {
    unsigned char bytes[8];
    source.readExactly(reinterpret_cast<char *>(bytes), sizeof bytes);
    uint64_t number = 0;
    for (int i = 0; i < 8; i++) {
        number |= static_cast<uint64_t>(bytes[i]) << (8 * i);
    }
    return number;
}

std::string readString(Source &source, uint64_t limit) {
    uint64_t size = readNumber(source);
    if (size > limit) {
        throw Error(ErrorKind::badInput,
                    "the export stream has a string of {} bytes, where at most {} make sense", size, limit);
    }
    std::string text((size + 7) / 8 * 8, '\0');
    source.readExactly(text.data(), text.size());
    if (text.find_first_not_of('\0', size) != std::string::npos) {
        throw Error(ErrorKind::badInput, "the export stream has a string whose padding is not zero");
    }
    text.resize(size);
    return text;
}

} // namespace

void LocalStore::exportPath(const StorePath &path, Sink &sink) {
    auto info = queryPathInfo(path);
    HashSink hash(HashAlgorithm::sha256);
    TeeSink tee(sink, hash);
    dumpNar(storeFd(), path.baseName(), tee);
    // Never hand on what is damaged.
    if (hash.current() != info.narHash) {
        throw Error(ErrorKind::corrupt, "hash of path '{}' has changed from '{}' to '{}'!", dir().print(path),
                    info.narHash.prefixed(Encoding::nix32), hash.current().prefixed(Encoding::nix32));
    }
    writeNumber(sink, exportMagic);
    writeString(sink, dir().print(path));
    writeNumber(sink, info.references.size());
    for (auto &reference : info.references) {
        writeString(sink, dir().print(reference));
    }
    writeString(sink, info.deriver ? dir().print(*info.deriver) : "");
    writeNumber(sink, 0);
}

namespace {

/// What follows a NAR in the stream.
PathInfo readTrailer(const StoreDir &dir, Source &source) {
    if (readNumber(source) != exportMagic) {
        throw Error(ErrorKind::badInput, "the export stream lacks its mark after an archive");
    }
    PathInfo info{.path = dir.parse(readString(source, pathTextLimit)),
                  .narHash = Hash(HashAlgorithm::sha256),
                  .references = {},
                  .deriver = {},
                  .signatures = {},
                  .contentAddress = {}};
    uint64_t count = readNumber(source);
    if (count > referencesLimit) {
        throw Error(ErrorKind::badInput, "the export stream gives '{}' {} references", dir.print(info.path),
                    count);
    }
    for (uint64_t i = 0; i < count; i++) {
        info.references.insert(dir.parse(readString(source, pathTextLimit)));
    }
    auto deriver = readString(source, pathTextLimit);
    if (!deriver.empty()) {
        info.deriver = dir.parse(deriver);
    }
    if (readNumber(source) == 1) {
        readString(source, 64 * 1024); // an old signature, which nobody checks any more
    }
    return info;
}

} // namespace

std::vector<StorePath> LocalStore::importPaths(Source &source, CheckSignatures check) {
    std::vector<StorePath> paths;
    for (uint64_t more; (more = readNumber(source)) != 0;) {
        if (more != 1) {
            throw Error(ErrorKind::badInput,
                        "input doesn't look like something created by 'nix-store --export'");
        }
        IncomingPath incoming(*impl_);
        incoming.receiveNar(source, HashAlgorithm::sha256);
        auto info = readTrailer(dir(), source);
        info.narHash = incoming.nar().hash;
        info.narSize = incoming.nar().size;
        if (check == CheckSignatures::yes && !isTrusted(info)) {
            incoming.requireAddress(info);
        }
        incoming.commit(info, Repair::no);
        paths.push_back(info.path);
    }
    return paths;
}

} // namespace firn
