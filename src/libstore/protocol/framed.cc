#include "libstore/protocol/framed.hh"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>

#include "libutil/files.hh"
#include "libutil/nar.hh"

namespace firn {

namespace {

constexpr size_t requestSize = 64 << 10;

/// Writes out the one regular file that the archive must be.
class FileExtractor : public NarVisitor {
  public:
    explicit FileExtractor(Sink &sink) : sink_(sink) {}
    void beginDirectory(const std::string &) override { refuse(); }
    void endDirectory() override {}
    void beginFile(const std::string &, bool, uint64_t) override {}
    void fileContents(std::string_view bytes) override {
        if (!refused) {
            sink_.write(bytes);
        }
    }
    void endFile() override {}
    void symlink(const std::string &, const std::string &) override { refuse(); }
    bool refused = false;

  private:
    void refuse() { refused = true; }
    Sink &sink_;
};

UniqueFd makeSpoolFile() {
    std::string path = (std::filesystem::temp_directory_path() / "firn-spool-XXXXXX").string();
    UniqueFd fd(mkostemp(path.data(), O_CLOEXEC));
    if (!fd) {
        throwErrno("creating temporary file '{}'", path);
    }
    if (unlink(path.c_str()) != 0) {
        throwErrno("unlinking temporary file '{}'", path);
    }
    return fd;
}

void rewind(int fd) {
    if (lseek(fd, 0, SEEK_SET) != 0) {
        throwErrno("seeking to the start of a temporary file");
    }
}

} // namespace

void FramedSource::nextFrame() {
    left_ = in_.number();
    ended_ = left_ == 0;
}

size_t FramedSource::read(char *buffer, size_t size) {
    if (size == 0) {
        return 0;
    }
    broken_ = true; // until this is over
    if (left_ == 0 && !ended_) {
        nextFrame();
    }
    size_t got = 0;
    if (!ended_) {
        got = in_.source().read(buffer, std::min<uint64_t>(size, left_));
        if (got == 0) {
            throw Error(ErrorKind::badInput, "The connection ended in the middle of a frame of data.");
        }
        left_ -= got;
    }
    broken_ = false;
    return got;
}

void FramedSource::drain() {
    NullSink nowhere;
    copyAll(*this, nowhere);
}

size_t RequestedSource::read(char *buffer, size_t size) {
    if (size == 0) {
        return 0;
    }
    if (used_ == block_.size()) {
        logger_.requestData(requestSize);
        in_.beginMessage();
        block_ = in_.string(requestSize);
        used_ = 0;
    }
    size_t got = std::min(size, block_.size() - used_);
    std::memcpy(buffer, block_.data() + used_, got);
    used_ += got;
    return got;
}

void TunnelSink::write(std::string_view bytes) {
    logger_.sendData(bytes);
}

UniqueFd spoolArchive(Source &source) {
    UniqueFd fd = makeSpoolFile();
    FdSink file(fd.get());
    TeeSource copy(source, file);
    discardNar(copy);
    file.flush();
    rewind(fd.get());
    return fd;
}

UniqueFd spoolFileOfArchive(Source &source) {
    UniqueFd fd = makeSpoolFile();
    FdSink file(fd.get());
    FileExtractor extractor(file);
    parseNar(source, extractor);
    if (extractor.refused) {
        throw Error(ErrorKind::badInput, "Only a regular file can be added this way.");
    }
    file.flush();
    rewind(fd.get());
    return fd;
}

} // namespace firn
