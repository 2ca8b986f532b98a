#include "builtin/loaded-files.hh"

#include <link.h>

namespace firn::builtin {

namespace {

/// The program itself comes first, and has no name.
int addObject(struct dl_phdr_info *info, size_t, void *data) {
    auto &files = *static_cast<LoadedFiles *>(data);
    for (ElfW(Half) i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &header = info->dlpi_phdr[i];
        if (header.p_type == PT_INTERP && files.loader.empty()) {
            files.loader = reinterpret_cast<const char *>(info->dlpi_addr + header.p_vaddr);
        }
    }
    // The kernel's vDSO has a name without a folder.
    if (info->dlpi_name && info->dlpi_name[0] == '/') {
        files.libraries.emplace_back(info->dlpi_name);
    }
    return 0;
}

} // namespace

LoadedFiles loadedFiles() {
    LoadedFiles files;
    dl_iterate_phdr(addObject, &files);
    return files;
}

} // namespace firn::builtin
