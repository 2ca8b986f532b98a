#include "builtin/download.hh"

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <thread>

#include <curl/curl.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builtin/progress.hh"
#include "firn-config.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::builtin {

namespace {

constexpr size_t maxErrorBody = 1024;
constexpr long maxRedirects = 10;
constexpr auto firstPause = std::chrono::milliseconds(250);
constexpr auto longestPause = std::chrono::milliseconds(30'000);

using Easy = std::unique_ptr<CURL, void (*)(CURL *)>;
using HeaderList = std::unique_ptr<curl_slist, void (*)(curl_slist *)>;

/// Another attempt cannot help.
bool isFinal(CURLcode code) {
    switch (code) {
    case CURLE_FAILED_INIT:
    case CURLE_URL_MALFORMAT:
    case CURLE_NOT_BUILT_IN:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_REMOTE_ACCESS_DENIED:
    case CURLE_FILE_COULDNT_READ_FILE:
    case CURLE_FUNCTION_NOT_FOUND:
    case CURLE_BAD_FUNCTION_ARGUMENT:
    case CURLE_UNKNOWN_OPTION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_TOO_MANY_REDIRECTS:
    case CURLE_WRITE_ERROR:
    case CURLE_ABORTED_BY_CALLBACK:
        return true;
    default:
        return false;
    }
}

/// Of an HTTP status that is no success. A server's trouble passes; what it says of the request does not.
bool isFinal(long status) {
    constexpr long requestTimeout = 408, tooManyRequests = 429;
    constexpr long notImplemented = 501, badVersion = 505, needsLogin = 511;
    if (status >= 500) {
        return status == notImplemented || status == badVersion || status == needsLogin;
    }
    return status != requestTimeout && status != tooManyRequests;
}

bool hasScheme(const std::string &url, std::string_view scheme) {
    return strncasecmp(url.c_str(), scheme.data(), scheme.size()) == 0;
}

// The slash belongs to it: libcurl takes what "file:80" begins with for the name of a host.
bool isHttp(const std::string &url) {
    return hasScheme(url, "http:/") || hasScheme(url, "https:/");
}

bool isFile(const std::string &url) {
    return hasScheme(url, "file:/");
}

/// libcurl would guess what other URLs mean, and what is set here for HTTP depends on what they are.
void checkScheme(const std::string &url) {
    if (!isHttp(url) && !isFile(url)) {
        throw Error(ErrorKind::badInput,
                    "unable to download {}: it has to begin with one of 'http://', 'https://' and 'file:///'",
                    quoteForDisplay(url));
    }
}

bool isReadable(const std::string &path) {
    return !path.empty() && access(path.c_str(), R_OK) == 0;
}

/// One URL on its way into one file, over several attempts.
class Transfer {
  public:
    Transfer(std::string url, int file, const DownloadOptions &options)
        : url_(std::move(url)), file_(file), options_(options), progress_(escapeForDisplay(url_)) {}

    void run() {
        auto pause = firstPause;
        for (uint64_t attempt = 1;; attempt++, pause = std::min(pause * 2, longestPause)) {
            if (tryOnce()) {
                return;
            }
            if (final_ || attempt >= options_.attempts) {
                throw Error(ErrorKind::failure, "{}{}", describe(), body());
            }
            auto wait = jittered(pause);
            say(fmt::format("{}; trying again in {} ms (attempt {} of {})", describe(), wait.count(),
                            attempt + 1, options_.attempts));
            std::this_thread::sleep_for(wait);
        }
    }

  private:
    std::chrono::milliseconds jittered(std::chrono::milliseconds pause) {
        // Many builds that lost the same server should not all come back at once.
        return pause + std::chrono::milliseconds(random_() % static_cast<unsigned>(pause.count()));
    }

    bool tryOnce();
    void begin();
    void configure(CURL *easy);
    void configureHttp(CURL *easy);
    void judge(CURL *easy, CURLcode code, const char *detail);
    std::string describe() const {
        return fmt::format("unable to download {}: {}", quoteForDisplay(url_), why_);
    }
    std::string body() const {
        return errorBody_.empty() ? "" : "\nthe server says:\n" + escapeForDisplay(errorBody_, maxErrorBody);
    }
    std::string explain(CURLcode code) const;
    std::string explainCertificates() const;

    static size_t onBody(char *bytes, size_t, size_t size, void *self) {
        return static_cast<Transfer *>(self)->write({bytes, size});
    }
    static size_t onHeader(char *bytes, size_t, size_t size, void *self) {
        static_cast<Transfer *>(self)->readHeader({bytes, size});
        return size;
    }
    static int onProgress(void *self, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
        static_cast<Transfer *>(self)->showProgress(total, now);
        return 0;
    }
    size_t write(std::string_view bytes);
    void readHeader(std::string_view line);
    void showProgress(curl_off_t total, curl_off_t now) {
        auto done = start_ + static_cast<uint64_t>(now);
        progress_.show(done, total > 0 ? start_ + static_cast<uint64_t>(total) : 0);
    }

    std::string url_;
    int file_;
    const DownloadOptions &options_;
    DownloadProgress progress_;
    std::minstd_rand random_{std::random_device{}()};

    CURL *easy_ = nullptr;
    HeaderList headers_{nullptr, curl_slist_free_all};
    uint64_t written_ = 0; ///< bytes in the file
    uint64_t start_ = 0;   ///< of these, from earlier attempts
    bool resumable_ = false, encoded_ = false;
    std::string entityTag_; ///< names the version that was begun
    std::string errorBody_, writeError_;
    std::string why_;
    bool final_ = false;
};

/// Goes on where the last attempt stopped, if the server said that it can.
void Transfer::begin() {
    if (!resumable_ || encoded_) {
        written_ = 0;
    }
    if (ftruncate(file_, static_cast<off_t>(written_)) != 0) {
        throwErrno("truncating the file that is downloaded to");
    }
    if (lseek(file_, 0, SEEK_END) < 0) {
        throwErrno("seeking in the file that is downloaded to");
    }
    start_ = written_;
    errorBody_.clear();
    headers_.reset();
}

void Transfer::configureHttp(CURL *easy) {
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(easy, CURLOPT_MAXREDIRS, maxRedirects);
    std::string agent =
        fmt::format("curl/{} Firn/{}", curl_version_info(CURLVERSION_NOW)->version, FIRN_VERSION);
    agent += options_.userAgentSuffix.empty() ? "" : " " + options_.userAgentSuffix;
    curl_easy_setopt(easy, CURLOPT_USERAGENT, agent.c_str());
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     long{options_.http2 ? CURL_HTTP_VERSION_2TLS : CURL_HTTP_VERSION_1_1});
    curl_easy_setopt(easy, CURLOPT_CAPATH, nullptr);
    // Without such a file no certificate is good: libcurl's own default is not what the settings say.
    curl_easy_setopt(easy, CURLOPT_CAINFO, options_.certificates.c_str());
    if (isReadable(options_.netrc)) {
        curl_easy_setopt(easy, CURLOPT_NETRC, long{CURL_NETRC_OPTIONAL});
        curl_easy_setopt(easy, CURLOPT_NETRC_FILE, options_.netrc.c_str());
    }
    if (start_ == 0) {
        curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "");
        return;
    }
    curl_easy_setopt(easy, CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(start_));
    if (!entityTag_.empty()) {
        headers_.reset(curl_slist_append(nullptr, ("If-Range: " + entityTag_).c_str()));
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers_.get());
    }
}

void Transfer::configure(CURL *easy) {
    curl_easy_setopt(easy, CURLOPT_URL, url_.c_str());
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https,file");
    curl_easy_setopt(easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    if (options_.connectTimeout > 0) {
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, static_cast<long>(options_.connectTimeout));
    }
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(options_.stalledTimeout));
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, onBody);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, this);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, onHeader);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, this);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, onProgress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, this);
    if (isHttp(url_)) {
        configureHttp(easy);
    }
}

bool Transfer::tryOnce() {
    begin();
    Easy easy(curl_easy_init(), curl_easy_cleanup);
    if (!easy) {
        throw Error(ErrorKind::system, "libcurl cannot be initialised");
    }
    easy_ = easy.get();
    char detail[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(easy_, CURLOPT_ERRORBUFFER, detail);
    configure(easy_);
    why_.clear();
    CURLcode code = curl_easy_perform(easy_);
    judge(easy_, code, detail);
    easy_ = nullptr;
    return why_.empty();
}

/// Sets why_, empty for success, and final_.
void Transfer::judge(CURL *easy, CURLcode code, const char *detail) {
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK && (!isHttp(url_) || (status >= 200 && status < 300))) {
        return;
    }
    if (code == CURLE_RANGE_ERROR || status == 416) {
        // It is another file by now, or the server promised too much: from the beginning.
        resumable_ = false;
        why_ = "the download cannot go on where it broke off";
        return;
    }
    if (code == CURLE_OK) {
        why_ = fmt::format("HTTP error {}", status);
        final_ = isFinal(status);
        return;
    }
    std::string text = detail[0] ? detail : curl_easy_strerror(code);
    why_ = fmt::format("{} ({}){}", escapeForDisplay(text), static_cast<int>(code), explain(code));
    if (!writeError_.empty()) {
        why_ = writeError_;
    }
    final_ = isFinal(code);
}

std::string Transfer::explainCertificates() const {
    if (options_.certificatesName.empty()) {
        return ". No file with certificate authorities was found: name one with the setting 'ssl-cert-file'";
    }
    return fmt::format(". Authorities are those in {}, which the setting 'ssl-cert-file' names{}",
                       quoteForDisplay(options_.certificatesName),
                       isReadable(options_.certificates) ? "" : ", and which cannot be read");
}

std::string Transfer::explain(CURLcode code) const {
    if (code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_SSL_CACERT_BADFILE) {
        return explainCertificates();
    }
    if (code == CURLE_FILE_COULDNT_READ_FILE) {
        return ". A sandboxed build sees no files of the host's but its inputs and what 'sandbox-paths' "
               "shows";
    }
    return "";
}

size_t Transfer::write(std::string_view bytes) {
    long status = 0;
    curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &status);
    if (isHttp(url_) && (status < 200 || status >= 300)) {
        errorBody_.append(bytes.substr(0, maxErrorBody - std::min(maxErrorBody, errorBody_.size())));
        return bytes.size();
    }
    try {
        writeFull(file_, bytes);
    } catch (const SysError &error) {
        writeError_ = error.message();
        return 0;
    }
    written_ += bytes.size();
    return bytes.size();
}

/// Whether it is that header; its value then.
bool headerValue(std::string_view line, std::string_view name, std::string &value) {
    if (line.size() <= name.size() || line[name.size()] != ':' ||
        strncasecmp(line.data(), name.data(), name.size()) != 0) {
        return false;
    }
    line.remove_prefix(name.size() + 1);
    size_t begin = std::min(line.find_first_not_of(" \t\r\n"), line.size());
    value = line.substr(begin, line.find_last_not_of(" \t\r\n") + 1 - begin);
    return true;
}

void Transfer::readHeader(std::string_view line) {
    std::string value;
    if (line.starts_with("HTTP/")) {
        // Each answer on the way (a redirect, a login) begins anew.
        resumable_ = encoded_ = false;
        entityTag_.clear();
    } else if (headerValue(line, "accept-ranges", value)) {
        resumable_ = value == "bytes";
    } else if (headerValue(line, "content-encoding", value)) {
        encoded_ = value != "identity" && !value.empty();
    } else if (headerValue(line, "etag", value)) {
        // A weak one does not promise the same bytes.
        entityTag_ = value.starts_with("W/") ? "" : value;
    }
}

} // namespace

void download(const std::string &url, int file, const DownloadOptions &options) {
    static const CURLcode initialised = curl_global_init(CURL_GLOBAL_DEFAULT);
    if (initialised != CURLE_OK) {
        throw Error(ErrorKind::system, "libcurl cannot be initialised: {}", curl_easy_strerror(initialised));
    }
    checkScheme(url);
    if (isFile(url) && isReadable(options.netrc)) {
        // A file of ours that a file URL might name.
        if (unlink(options.netrc.c_str()) != 0) {
            throwErrno("removing '{}'", options.netrc);
        }
    }
    Transfer(url, file, options).run();
}

} // namespace firn::builtin
