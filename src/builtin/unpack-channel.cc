// Unpacks an archive that a stranger made. libarchive reads it; what is written is decided here: plain
// relative names, directories, regular files, symlinks (anywhere they like to point, but nothing is written
// through one) and hard links to files of this very archive; modes as the store knows them.

#include "builtin/builders.hh"

#include <memory>
#include <set>

#include <archive.h>
#include <archive_entry.h>
#include <sys/stat.h>
#include <unistd.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn::builtin {

namespace {

using Reader = std::unique_ptr<archive, int (*)(archive *)>;
using Writer = std::unique_ptr<archive, int (*)(archive *)>;
using Entry = std::unique_ptr<archive_entry, void (*)(archive_entry *)>;

[[noreturn]] void failWith(archive *which, const std::string &attempt) {
    const char *why = which ? archive_error_string(which) : nullptr;
    throw Error(ErrorKind::badInput, "{}: {}", attempt,
                escapeForDisplay(why ? why : "libarchive does not say why"));
}

Reader openArchive(const std::string &path) {
    Reader reader(archive_read_new(), archive_read_free);
    if (!reader) {
        throw Error(ErrorKind::system, "libarchive cannot be initialised");
    }
    // No filter that starts a program, no format (mtree) that takes contents from other files. What this
    // libarchive was built without, it says when it is needed.
    for (auto support :
         {archive_read_support_filter_bzip2, archive_read_support_filter_compress,
          archive_read_support_filter_gzip, archive_read_support_filter_lz4, archive_read_support_filter_lzip,
          archive_read_support_filter_lzma, archive_read_support_filter_xz, archive_read_support_filter_zstd,
          archive_read_support_format_tar, archive_read_support_format_gnutar,
          archive_read_support_format_zip, archive_read_support_format_cpio}) {
        support(reader.get());
    }
    if (archive_read_open_filename(reader.get(), path.c_str(), 128 * 1024) != ARCHIVE_OK) {
        failWith(reader.get(), fmt::format("opening archive '{}'", path));
    }
    return reader;
}

/// The components of a name, joined again. Empty for the top itself.
std::string plainName(const char *raw) {
    std::string_view name = raw ? raw : "";
    if (name.starts_with('/') || name.empty()) {
        throw Error(ErrorKind::badInput, "the archive has an entry with the name {}", quoteForDisplay(name));
    }
    std::string result;
    for (std::string_view rest = name; !rest.empty();) {
        size_t end = std::min(rest.find('/'), rest.size());
        std::string_view part = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (part == "..") {
            throw Error(ErrorKind::badInput, "the archive has an entry outside itself, {}",
                        quoteForDisplay(name));
        }
        if (!part.empty() && part != ".") {
            result.append(result.empty() ? "" : "/").append(part);
        }
    }
    return result;
}

/// Where the locale cannot express it, the bytes as they are.
const char *nameOf(archive_entry *entry) {
    const char *name = archive_entry_pathname(entry);
    return name ? name : archive_entry_pathname_utf8(entry);
}

/// Unpacks into the working directory.
class Unpacker {
  public:
    explicit Unpacker(archive *reader)
        : reader_(reader), writer_(archive_write_disk_new(), archive_write_free) {
        int flags = ARCHIVE_EXTRACT_SECURE_SYMLINKS | ARCHIVE_EXTRACT_SECURE_NODOTDOT |
                    ARCHIVE_EXTRACT_SECURE_NOABSOLUTEPATHS;
        if (!writer_ || archive_write_disk_set_options(writer_.get(), flags) != ARCHIVE_OK) {
            throw Error(ErrorKind::system, "libarchive cannot be initialised");
        }
    }

    void run() {
        archive_entry *entry = nullptr;
        for (;;) {
            int result = archive_read_next_header(reader_, &entry);
            if (result == ARCHIVE_EOF) {
                break;
            }
            if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
                failWith(reader_, "reading the archive");
            }
            unpack(entry);
        }
        if (archive_write_close(writer_.get()) != ARCHIVE_OK) {
            failWith(writer_.get(), "finishing the unpacked files");
        }
    }

  private:
    void unpack(archive_entry *entry);
    Entry cleanEntry(archive_entry *entry, const std::string &name);
    void setHardLink(archive_entry *clean, const char *target, const std::string &name);
    void copyContents(const std::string &name);

    archive *reader_;
    Writer writer_;
    std::set<std::string> files_; ///< regular ones that were unpacked
};

void Unpacker::setHardLink(archive_entry *clean, const char *target, const std::string &name) {
    std::string file = plainName(target);
    if (!files_.contains(file)) {
        throw Error(ErrorKind::badInput, "the archive has a hard link, {}, to what is no file in it, {}",
                    quoteForDisplay(name), quoteForDisplay(file));
    }
    archive_entry_copy_hardlink(clean, file.c_str());
}

/// Nothing of the original but what is listed here reaches the disk.
Entry Unpacker::cleanEntry(archive_entry *entry, const std::string &name) {
    Entry clean(archive_entry_new(), archive_entry_free);
    archive_entry_copy_pathname(clean.get(), name.c_str());
    mode_t type = archive_entry_filetype(entry);
    if (const char *target = archive_entry_hardlink(entry)) {
        setHardLink(clean.get(), target, name);
        archive_entry_set_filetype(clean.get(), AE_IFREG);
    } else if (type == AE_IFLNK) {
        const char *symlinkTarget = archive_entry_symlink(entry);
        archive_entry_copy_symlink(clean.get(), symlinkTarget ? symlinkTarget : "");
        archive_entry_set_filetype(clean.get(), AE_IFLNK);
    } else if (type == AE_IFDIR || type == AE_IFREG) {
        archive_entry_set_filetype(clean.get(), type);
    } else {
        throw Error(ErrorKind::badInput,
                    "the archive has an entry, {}, that is no file, directory or symlink",
                    quoteForDisplay(name));
    }
    // As the store has it: the owner's bit decides.
    bool executable = type == AE_IFDIR || (archive_entry_perm(entry) & S_IXUSR) != 0;
    archive_entry_set_perm(clean.get(), executable ? 0755 : 0644);
    if (archive_entry_size_is_set(entry) && !archive_entry_hardlink(entry)) {
        archive_entry_set_size(clean.get(), archive_entry_size(entry));
    }
    return clean;
}

void Unpacker::unpack(archive_entry *entry) {
    std::string name = plainName(nameOf(entry));
    if (name.empty()) {
        return;
    }
    Entry clean = cleanEntry(entry, name);
    if (archive_write_header(writer_.get(), clean.get()) != ARCHIVE_OK) {
        failWith(writer_.get(), fmt::format("unpacking {}", quoteForDisplay(name)));
    }
    bool isFile = archive_entry_filetype(clean.get()) == AE_IFREG && !archive_entry_hardlink(clean.get());
    files_.erase(name);
    if (isFile) {
        files_.insert(name);
        copyContents(name);
    }
    if (archive_write_finish_entry(writer_.get()) != ARCHIVE_OK) {
        failWith(writer_.get(), fmt::format("unpacking {}", quoteForDisplay(name)));
    }
}

void Unpacker::copyContents(const std::string &name) {
    for (;;) {
        const void *block = nullptr;
        size_t size = 0;
        la_int64_t offset = 0;
        int result = archive_read_data_block(reader_, &block, &size, &offset);
        if (result == ARCHIVE_EOF) {
            return;
        }
        if (result != ARCHIVE_OK && result != ARCHIVE_WARN) {
            failWith(reader_, fmt::format("reading {} from the archive", quoteForDisplay(name)));
        }
        if (archive_write_data_block(writer_.get(), block, size, offset) < ARCHIVE_OK) {
            failWith(writer_.get(), fmt::format("unpacking {}", quoteForDisplay(name)));
        }
    }
}

void checkChannelName(const std::string &name) {
    if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos) {
        throw Error(ErrorKind::badInput, "channelName is to be the name of a directory, not {}",
                    quoteForDisplay(name));
    }
}

void nameTop(int out, const std::string &source, const std::string &wanted) {
    std::vector<std::string> entries = listDirectory(out);
    if (entries.size() != 1) {
        throw Error(ErrorKind::badInput,
                    "channel tarball '{}' has {} entries at its top instead of one directory", source,
                    entries.size());
    }
    if (renameat(out, entries.front().c_str(), out, wanted.c_str()) != 0) {
        throwErrno("renaming {} to {}", quoteForDisplay(entries.front()), quoteForDisplay(wanted));
    }
}

} // namespace

void unpackChannel(const Request &request) {
    const std::string &source = request.attribute("src"), &out = request.attribute("out");
    const std::string &channelName = request.attribute("channelName");
    checkChannelName(channelName);
    Reader reader = openArchive(source);
    if (mkdir(out.c_str(), 0755) != 0) {
        throwErrno("making the directory '{}'", out);
    }
    UniqueFd directory = openDirectory(out);
    if (fchdir(directory.get()) != 0) {
        throwErrno("entering '{}'", out);
    }
    Unpacker(reader.get()).run();
    nameTop(directory.get(), source, channelName);
}

} // namespace firn::builtin
