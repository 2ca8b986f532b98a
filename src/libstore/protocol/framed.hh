#pragma once

#include <cstdint>
#include <string>

#include "libstore/protocol/tunnel-logger.hh"
#include "libstore/protocol/wire.hh"
#include "libutil/file-descriptor.hh"

// How bulk data of unknown length comes in. Since 1.23 a client sends frames (a length and as many bytes,
// unpadded; a frame of length 0 is the end) while it listens for log messages. Before, the daemon asked for
// each block (STDERR_READ) or had the archive in the stream itself, with nothing around it.

namespace firn {

/// The contents of all frames up to the end.
class FramedSource : public Source {
  public:
    explicit FramedSource(WireReader &in) : in_(in) {}
    size_t read(char *buffer, size_t size) override;
    /// Reads what is left, so that the next message can follow. Not after this source has thrown.
    void drain();
    /// Whether the connection failed within the frames: nobody knows where the next message starts.
    bool broken() const { return broken_; }

  private:
    void nextFrame();
    WireReader &in_;
    uint64_t left_ = 0; ///< bytes in the current frame
    bool ended_ = false, broken_ = false;
};

/// Blocks that the client sends when asked.
class RequestedSource : public Source {
  public:
    RequestedSource(WireReader &in, TunnelLogger &logger) : in_(in), logger_(logger) {}
    size_t read(char *buffer, size_t size) override;

  private:
    WireReader &in_;
    TunnelLogger &logger_;
    std::string block_;
    size_t used_ = 0;
};

/// Blocks sent to the client within an operation (STDERR_WRITE), for ExportPath.
class TunnelSink : public Sink {
  public:
    explicit TunnelSink(TunnelLogger &logger) : logger_(logger) {}
    void write(std::string_view bytes) override;

  private:
    TunnelLogger &logger_;
};

/// Copies exactly one archive from `source` to a nameless temporary file; positioned at its start. The old
/// forms do not say where their data end, only the archive itself does.
UniqueFd spoolArchive(Source &source);
/// The same for the contents of an archive that must be a single regular file.
UniqueFd spoolFileOfArchive(Source &source);

} // namespace firn
