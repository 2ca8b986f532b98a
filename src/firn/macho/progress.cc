#include "firn/macho/progress.hh"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "firn/macho/tree-walk.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using namespace std::chrono_literals;

constexpr auto patience = 1s;
constexpr int frame = 100; // milliseconds

size_t terminalWidth() {
    struct winsize size {};
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : 80;
}

/// The work ended; there is nothing left to survey.
struct Ended {};

class Surveyor : public TreeVisitor {
  public:
    explicit Surveyor(std::function<void(uint64_t)> onFile) : onFile_(std::move(onFile)) {}

    void file(int dir, const std::string &name, const std::string &) override {
        struct stat st;
        if (fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
            onFile_(static_cast<uint64_t>(st.st_size));
        }
    }
    void problem(const std::string &, const std::string &) override {} // said by who does the work

  private:
    std::function<void(uint64_t)> onFile_;
};

} // namespace

std::string describeSize(uint64_t bytes) {
    static constexpr const char *units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        return fmt::format("{} bytes", bytes);
    }
    double size = static_cast<double>(bytes) / 1024;
    size_t unit = 0;
    while (size >= 1024 && unit + 1 < std::size(units)) {
        size /= 1024;
        ++unit;
    }
    return fmt::format("{:.1f} {}", size, units[unit]);
}

std::string progressLine(uint64_t done, uint64_t total, size_t width) {
    double share = total == 0 ? 1 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    std::string text = fmt::format(" {:3} %  {} of {}", static_cast<int>(share * 100),
                                   describeSize(std::min(done, total)), describeSize(total));
    if (width < text.size() + 12) {
        return text.substr(0, width);
    }
    size_t room = std::min<size_t>(width - text.size() - 2, 50);
    size_t filled = static_cast<size_t>(share * static_cast<double>(room));
    return "[" + std::string(filled, '#') + std::string(room - filled, ' ') + "]" + text;
}

Progress::Progress(std::vector<std::string> paths) {
    if (isatty(STDERR_FILENO)) {
        thread_ = std::thread([this, paths = std::move(paths)] { run(paths); });
    }
}

Progress::~Progress() {
    if (!thread_.joinable()) {
        return;
    }
    {
        std::lock_guard lock(mutex_);
        ended_ = true;
        hide();
    }
    end_.notify_all();
    thread_.join();
}

void Progress::print(const std::function<void()> &printing) {
    std::lock_guard lock(mutex_);
    hide();
    printing();
    if (thread_.joinable()) {
        std::fflush(stdout); // before the bar comes back
    }
}

/// Whether the work ended, now or within that time.
bool Progress::ended(int milliseconds) {
    std::unique_lock lock(mutex_);
    return end_.wait_for(lock, std::chrono::milliseconds(milliseconds), [this] { return ended_; });
}

void Progress::run(const std::vector<std::string> &paths) {
    if (ended(static_cast<int>(std::chrono::milliseconds(patience).count()))) {
        return;
    }
    try {
        for (const std::string &path : paths) {
            survey(path);
        }
    } catch (const Ended &) {
        return;
    }
    do {
        show(true);
    } while (!ended(frame));
}

void Progress::survey(const std::string &path) {
    auto shownAt = std::chrono::steady_clock::now() - 1h;
    auto add = [&](uint64_t size) {
        total_ += size;
        if (auto now = std::chrono::steady_clock::now(); now - shownAt >= std::chrono::milliseconds(frame)) {
            shownAt = now;
            show(false);
        }
        if (ended(0)) {
            throw Ended();
        }
    };
    struct stat st;
    if (stat(path.c_str(), &st) != 0) {
        return;
    }
    if (S_ISREG(st.st_mode)) {
        add(static_cast<uint64_t>(st.st_size));
    } else if (S_ISDIR(st.st_mode)) {
        try {
            Surveyor surveyor(add);
            walkTree(openDirectory(path).get(), path, surveyor);
        } catch (const Error &) { // said by who does the work
        }
    }
}

void Progress::show(bool surveyed) {
    std::lock_guard lock(mutex_);
    if (ended_) {
        return;
    }
    uint64_t done = done_;
    std::string line = surveyed ? progressLine(done, total_, terminalWidth() - 1) : describeSize(done);
    fmt::print(stderr, "\r{}\x1b[K", line);
    std::fflush(stderr);
    shown_ = true;
}

/// With the lock held.
void Progress::hide() {
    if (shown_) {
        fmt::print(stderr, "\r\x1b[K");
        std::fflush(stderr);
        shown_ = false;
    }
}

} // namespace firn
