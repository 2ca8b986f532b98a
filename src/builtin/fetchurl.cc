#include "builtin/builders.hh"

#include <memory>

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin/download.hh"
#include "builtin/progress.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/nar.hh"
#include "libutil/stream.hh"

namespace firn::builtin {

namespace {

constexpr const char *downloadFile = ".download";

DownloadOptions downloadOptions(const Request &request) {
    DownloadOptions options;
    options.certificates = ".ca-certificates.crt";
    options.certificatesName = request.setting("certificates");
    options.netrc = ".netrc";
    options.connectTimeout = request.number("connect-timeout", options.connectTimeout);
    options.stalledTimeout = request.number("stalled-download-timeout", options.stalledTimeout);
    options.attempts = request.number("download-attempts", options.attempts);
    options.http2 = request.number("http2", 1) != 0;
    options.userAgentSuffix = request.setting("user-agent-suffix");
    return options;
}

UniqueFd createFile(const std::string &path) {
    UniqueFd file(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644));
    if (!file) {
        throwErrno("making '{}'", path);
    }
    return file;
}

/// A mirror that lacks the file is no failure.
bool fetchFromMirror(const std::string &url, int file, DownloadOptions options) {
    // Passwords are for the host that the derivation names.
    options.netrc.clear();
    options.attempts = 1;
    try {
        download(url, file, options);
        return true;
    } catch (const Error &error) {
        say(error.message());
        return false;
    }
}

void fetch(const Request &request, int file) {
    DownloadOptions options = downloadOptions(request);
    auto [mirror, end] = request.settings.equal_range("hashed-mirror");
    for (; mirror != end; ++mirror) {
        if (fetchFromMirror(mirror->second, file, options)) {
            return;
        }
    }
    const std::string &url = request.attribute("url");
    say(fmt::format("downloading {}", quoteForDisplay(url)));
    download(url, file, options);
}

/// The contents of a file that is compressed with xz.
class XzSource : public Source {
  public:
    explicit XzSource(int file) : archive_(archive_read_new(), archive_read_free) {
        archive_entry *entry = nullptr;
        bool ready = archive_ && archive_read_support_filter_xz(archive_.get()) == ARCHIVE_OK &&
                     archive_read_support_format_raw(archive_.get()) == ARCHIVE_OK &&
                     archive_read_open_fd(archive_.get(), file, 64 * 1024) == ARCHIVE_OK &&
                     archive_read_next_header(archive_.get(), &entry) == ARCHIVE_OK;
        if (!ready) {
            fail();
        }
    }
    size_t read(char *buffer, size_t size) override {
        la_ssize_t got = archive_read_data(archive_.get(), buffer, size);
        if (got < 0) {
            fail();
        }
        return static_cast<size_t>(got);
    }

  private:
    [[noreturn]] void fail() {
        const char *why = archive_ ? archive_error_string(archive_.get()) : nullptr;
        throw Error(ErrorKind::badInput, "decompressing the download: {}",
                    escapeForDisplay(why ? why : "it is no xz file"));
    }
    std::unique_ptr<archive, int (*)(archive *)> archive_;
};

void unpack(int file, const std::string &out, bool compressed) {
    if (lseek(file, 0, SEEK_SET) < 0) {
        throwErrno("seeking in the download");
    }
    std::unique_ptr<Source> source;
    if (compressed) {
        source = std::make_unique<XzSource>(file);
    } else {
        source = std::make_unique<FdSource>(file);
    }
    std::filesystem::path path(out);
    UniqueFd parent = openDirectory(path.parent_path());
    try {
        restoreNar(*source, parent.get(), path.filename());
    } catch (Error &error) {
        error.addContext("unpacking the download, which should be a Nix archive (NAR)");
        throw;
    }
}

} // namespace

void fetchUrl(const Request &request) {
    const std::string &out = request.attribute("out");
    bool isArchive = request.flag("unpack");
    UniqueFd file = createFile(isArchive ? downloadFile : out);
    fetch(request, file.get());
    if (isArchive) {
        unpack(file.get(), out, request.attribute("url").ends_with(".xz"));
    }
    file.close();
    if (request.flag("executable") && chmod(out.c_str(), 0755) != 0) {
        throwErrno("making '{}' executable", out);
    }
}

} // namespace firn::builtin
