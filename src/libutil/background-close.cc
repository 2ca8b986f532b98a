#include "libutil/background-close.hh"

#include <memory>
#include <system_error>
#include <thread>
#include <utility>

namespace firn {

void closeInBackground(std::vector<UniqueFd> files) {
    if (files.empty()) {
        return;
    }
    auto shared = std::make_shared<std::vector<UniqueFd>>(std::move(files));
    try {
        std::thread([shared]() mutable { shared.reset(); }).detach();
    } catch (const std::system_error &) {
        // No thread to be had: they are closed here.
    }
}

} // namespace firn
