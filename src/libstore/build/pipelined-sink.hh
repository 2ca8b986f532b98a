#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string>
#include <thread>

#include "libutil/stream.hh"

namespace firn {

/// Passes what is written to it on to another sink in a thread of its own, so that hashing overlaps with
/// reading and scanning. A stream of less than one block never starts the thread. Memory is bounded: write()
/// waits while the other side is four blocks behind. To be written to from one thread.
class PipelinedSink : public Sink {
  public:
    /// `next` must outlive the sink and is not to be touched between the first write() and finish().
    explicit PipelinedSink(Sink &next) : next_(next) {}
    /// Without finish(), what was not passed on yet is dropped.
    ~PipelinedSink() override;
    void write(std::string_view bytes) override;
    /// Waits until everything was passed on. Throws what the other sink threw. Must be the last call.
    void finish();

  private:
    static constexpr size_t blockSize = 256 * 1024;
    static constexpr size_t maxBlocks = 4;

    void passBlock();
    void run();
    void stop(bool drop);

    Sink &next_;
    std::string block_; ///< being filled

    std::thread thread_;
    std::mutex mutex_;                ///< guards what follows
    std::condition_variable changed_; ///< on every change of it
    std::deque<std::string> full_;    ///< to be passed on
    std::deque<std::string> empty_;   ///< to be used again
    bool ended_ = false;              ///< nothing more will come
    std::exception_ptr failure_;      ///< of the other sink
};

} // namespace firn
