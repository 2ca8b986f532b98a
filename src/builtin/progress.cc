#include "builtin/progress.hh"

#include <cstdio>

#include <nlohmann/json.hpp>

namespace firn::builtin {

namespace {

// Numbers of Nix's internal-json log format.
constexpr int fileTransferActivity = 101;
constexpr int progressResult = 105;
constexpr int talkative = 4;
constexpr int ownId = 1;

void send(const nlohmann::json &message) {
    using Handler = nlohmann::json::error_handler_t;
    say("@nix " + message.dump(-1, ' ', false, Handler::replace));
}

} // namespace

void say(const std::string &line) {
    fprintf(stderr, "%s\n", line.c_str());
}

DownloadProgress::DownloadProgress(const std::string &url) {
    send({{"action", "start"},
          {"id", ownId},
          {"level", talkative},
          {"type", fileTransferActivity},
          {"text", "downloading '" + url + "'"},
          {"fields", {url}}});
}

DownloadProgress::~DownloadProgress() {
    send({{"action", "stop"}, {"id", ownId}});
}

void DownloadProgress::show(uint64_t done, uint64_t expected) {
    auto now = std::chrono::steady_clock::now();
    if (done == done_ || now - shown_ < std::chrono::seconds(1)) {
        return;
    }
    done_ = done;
    shown_ = now;
    send({{"action", "result"}, {"id", ownId}, {"type", progressResult}, {"fields", {done, expected, 0, 0}}});
}

} // namespace firn::builtin
