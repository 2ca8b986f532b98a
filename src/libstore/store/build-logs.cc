#include <algorithm>
#include <array>
#include <cerrno>

#include <bzlib.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libstore/store/impl.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

// Build logs, where `nix log` and `nix-store --read-log` look for them: "drvs/<first two characters of the
// derivation's base name>/<the rest>", with ".bz2" where compressed.

namespace firn {

namespace {

/// A log that unpacks to more is not given out whole.
constexpr uint64_t logLimit = 1ULL << 30;

class Bzip2Sink : public Sink {
  public:
    explicit Bzip2Sink(Sink &next) : next_(next) {
        if (BZ2_bzCompressInit(&stream_, 9, 0, 0) != BZ_OK) {
            throw Error(ErrorKind::system, "cannot start bzip2 compression: out of memory");
        }
    }
    ~Bzip2Sink() override { BZ2_bzCompressEnd(&stream_); }
    Bzip2Sink(const Bzip2Sink &) = delete;
    Bzip2Sink &operator=(const Bzip2Sink &) = delete;

    void write(std::string_view bytes) override {
        stream_.next_in = const_cast<char *>(bytes.data());
        while (!bytes.empty()) {
            auto part = static_cast<unsigned>(std::min<size_t>(bytes.size(), 1 << 20));
            stream_.avail_in = part;
            while (stream_.avail_in > 0) {
                step(BZ_RUN);
            }
            bytes.remove_prefix(part);
        }
    }
    void finish() {
        while (step(BZ_FINISH) != BZ_STREAM_END) {
        }
    }

  private:
    int step(int action) {
        stream_.next_out = buffer_.data();
        stream_.avail_out = static_cast<unsigned>(buffer_.size());
        int status = BZ2_bzCompress(&stream_, action);
        if (status < 0) {
            throw Error(ErrorKind::bug, "bzip2 compression failed with status {}", status);
        }
        next_.write({buffer_.data(), buffer_.size() - stream_.avail_out});
        return status;
    }

    Sink &next_;
    bz_stream stream_{};
    std::array<char, 64 * 1024> buffer_;
};

/// One or several bzip2 streams after each other.
std::string decompress(std::string_view packed, const std::string &what) {
    std::string text;
    std::array<char, 64 * 1024> buffer;
    while (!packed.empty()) {
        bz_stream stream{};
        if (BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK) {
            throw Error(ErrorKind::system, "cannot start bzip2 decompression: out of memory");
        }
        ScopeExit end([&] { BZ2_bzDecompressEnd(&stream); });
        stream.next_in = const_cast<char *>(packed.data());
        stream.avail_in = static_cast<unsigned>(std::min<size_t>(packed.size(), 1U << 30));
        int status = BZ_OK;
        while (status == BZ_OK) {
            stream.next_out = buffer.data();
            stream.avail_out = static_cast<unsigned>(buffer.size());
            status = BZ2_bzDecompress(&stream);
            text.append(buffer.data(), buffer.size() - stream.avail_out);
            bool starved = status == BZ_OK && stream.avail_in == 0 && stream.avail_out != 0;
            if ((status != BZ_OK && status != BZ_STREAM_END) || starved || text.size() > logLimit) {
                throw Error(ErrorKind::corrupt, "build log '{}' is truncated, damaged or too long", what);
            }
        }
        packed.remove_prefix(static_cast<size_t>(stream.next_in - packed.data()));
    }
    return text;
}

} // namespace

std::filesystem::path LocalStore::buildLogPath(const StorePath &drvPath) const {
    auto &base = drvPath.baseName();
    auto path = locations().logDir / "drvs" / base.substr(0, 2) / base.substr(2);
    if (settings().compressLog) {
        path += ".bz2";
    }
    return path;
}

void LocalStore::addBuildLog(const StorePath &drvPath, Source &log) {
    auto path = buildLogPath(drvPath);
    makeDirectories(path.parent_path());
    auto temporary = path;
    temporary += fmt::format(".tmp-{}", getpid());
    UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!fd) {
        throwErrno("creating build log '{}'", temporary.string());
    }
    ScopeExit cleanUp([&] { unlink(temporary.c_str()); });
    FdSink file(fd.get());
    if (settings().compressLog) {
        Bzip2Sink packed(file);
        copyAll(log, packed);
        packed.finish();
    } else {
        copyAll(log, file);
    }
    file.flush();
    if (rename(temporary.c_str(), path.c_str()) != 0) {
        throwErrno("renaming build log '{}' to '{}'", temporary.string(), path.string());
    }
    cleanUp.cancel();
}

std::optional<std::string> LocalStore::buildLog(const StorePath &drvPath) {
    auto &base = drvPath.baseName();
    auto plain = locations().logDir / "drvs" / base.substr(0, 2) / base.substr(2);
    auto packed = plain;
    packed += ".bz2";
    for (auto &path : {plain, packed}) {
        try {
            auto bytes = readFile(path, logLimit);
            return path == packed ? decompress(bytes, path.string()) : bytes;
        } catch (const SysError &error) {
            if (error.number() != ENOENT) {
                throw;
            }
        }
    }
    return std::nullopt;
}

} // namespace firn
