#include "libstore/build/clone-file.hh"

#include <linux/fs.h>
#include <sys/ioctl.h>

namespace firn {

bool cloneFile(int from, int to) {
    return ioctl(to, FICLONE, from) == 0;
}

} // namespace firn
