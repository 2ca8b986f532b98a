#pragma once

#include <set>
#include <string>

#include <sys/types.h>

#include "libutil/file-descriptor.hh"
#include "libutil/stream.hh"

namespace firn {

/// Unpacks one NAR as new entry `name` of `dir` (a store directory) in its final form: modes and times are
/// set on the open descriptor of each file as it is written, so that no second walk over the tree is needed.
/// Falls back to canonicaliseTree() where the file system gives new files attributes of its own (inherited
/// ACLs). On failure what was made so far stays. `sync`: flush every file and directory.
void unpackCanonical(Source &nar, int dir, const std::string &name, const std::set<std::string> &ignoredAcls,
                     bool sync);

/// One regular file in the same form, of a source's whole content (no NAR).
class CanonicalFile {
  public:
    CanonicalFile(int dir, std::string name, bool executable);
    void write(std::string_view bytes);
    void finish(bool sync);
    int fd() const { return fd_.get(); }

  private:
    UniqueFd fd_;
    std::string name_;
    mode_t mode_;
};

} // namespace firn
