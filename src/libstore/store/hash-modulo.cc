#include "libstore/store/hash-modulo.hh"

#include <algorithm>

namespace firn {

namespace {

/// Passes a stream on with zeros for a text, and tells at which offsets that stood.
class Blanker : public Sink {
  public:
    using Found = std::function<void(uint64_t offset)>;
    Blanker(const std::string &modulus, Sink &blanked, Found found)
        : modulus_(modulus), blanked_(blanked), found_(std::move(found)) {}

    void write(std::string_view bytes) override {
        window_.append(bytes);
        blank();
        // The last bytes may be the beginning of an occurrence.
        pass(window_.size() - std::min(window_.size(), modulus_.size() - 1));
    }
    void finish() { pass(window_.size()); }

  private:
    void blank() {
        for (size_t at = 0; (at = window_.find(modulus_, at)) != std::string::npos; at += modulus_.size()) {
            found_(offset_ + at);
            std::fill_n(window_.begin() + static_cast<std::ptrdiff_t>(at), modulus_.size(), '\0');
        }
    }
    void pass(size_t count) {
        blanked_.write(std::string_view(window_).substr(0, count));
        window_.erase(0, count);
        offset_ += count;
    }

    const std::string &modulus_;
    Sink &blanked_;
    Found found_;
    std::string window_;
    uint64_t offset_ = 0; ///< of the window's start in the stream
};

} // namespace

HashModulo::HashModulo(HashAlgorithm algorithm, std::string modulus, StreamWriter stream,
                       std::string_view mark)
    : modulus_(std::move(modulus)),
      stream_(std::move(stream)),
      mark_(mark),
      hash_(algorithm),
      zeros_(algorithm) {
    Blanker blanker(modulus_, hash_, [](uint64_t) {});
    stream_(blanker);
    blanker.finish();
    zeros_ = hash_.current();
}

const Hash &HashModulo::zerosThenOffsets() {
    if (!zerosThenOffsets_) {
        NullSink nowhere;
        Blanker blanker(modulus_, nowhere,
                        [this](uint64_t offset) { hash_.write("|" + std::to_string(offset)); });
        stream_(blanker);
        blanker.finish();
        hash_.write(mark_);
        zerosThenOffsets_ = hash_.current();
    }
    return *zerosThenOffsets_;
}

} // namespace firn
