#pragma once

#include <cstdint>
#include <string_view>

namespace firn {

/// Reads exactly so many bytes from a place of a file, retrying on EINTR and short reads. Throws SysError,
/// and Error(failure) where the file ends before; neither names the file.
void readFullAt(int fd, uint64_t offset, char *buffer, size_t size);

/// Writes everything to a place of a file, retrying on EINTR and short writes. Throws SysError, which does
/// not name the file.
void writeFullAt(int fd, uint64_t offset, std::string_view bytes);

} // namespace firn
