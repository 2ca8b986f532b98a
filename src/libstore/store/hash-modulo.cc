#include "libstore/store/hash-modulo.hh"

#include <algorithm>

namespace firn {

HashModuloSink::HashModuloSink(HashAlgorithm algorithm, std::string modulus)
    : hash_(algorithm), modulus_(std::move(modulus)) {}

void HashModuloSink::blankMatches() {
    for (size_t at = 0; (at = window_.find(modulus_, at)) != std::string::npos; at += modulus_.size()) {
        matches_.push_back(offset_ + at);
        std::fill_n(window_.begin() + static_cast<std::ptrdiff_t>(at), modulus_.size(), '\0');
    }
}

void HashModuloSink::write(std::string_view bytes) {
    window_.append(bytes);
    blankMatches();
    // The last bytes may be the beginning of an occurrence.
    size_t keep = std::min(window_.size(), modulus_.size() - 1);
    size_t done = window_.size() - keep;
    hash_.write(std::string_view(window_).substr(0, done));
    window_.erase(0, done);
    offset_ += done;
}

ModuloHashes HashModuloSink::finish(std::string_view mark) {
    hash_.write(window_);
    window_.clear();
    Hash zeros = hash_.current();
    for (auto match : matches_) {
        hash_.write("|" + std::to_string(match));
    }
    hash_.write(mark);
    return {zeros, hash_.current()};
}

} // namespace firn
