#include "libutil/background-close.hh"

#include <exception>
#include <memory>
#include <thread>
#include <utility>

namespace firn {

void closeInBackground(std::vector<UniqueFd> files) {
    if (files.empty()) {
        return;
    }
    auto owned = std::make_unique<std::vector<UniqueFd>>(std::move(files));
    try {
        std::thread([all = owned.get()] { delete all; }).detach();
        owned.release(); // to that thread
    } catch (const std::exception &) {
        // No thread to be had: they are closed here.
    }
}

} // namespace firn
