#include "sandbox-init/description.hh"

#include <algorithm>

namespace firn::sandbox {

namespace {

constexpr uint32_t magic = 0x78626e73;
constexpr uint32_t version = 6;

class Encoder {
  public:
    std::string bytes;

    void number(const uint32_t &value) {
        for (int shift = 0; shift < 32; shift += 8) {
            bytes.push_back(static_cast<char>(value >> shift & 0xff));
        }
    }
    void number(const int32_t &value) { number(static_cast<uint32_t>(value)); }
    void flag(const bool &value) { number(uint32_t{value}); }
    void blob(const std::string &value) {
        number(static_cast<uint32_t>(value.size()));
        bytes += value;
    }
    void text(const std::string &value) { blob(value); }
    template<typename Enum>
    void choice(const Enum &value, Enum) {
        number(static_cast<uint32_t>(value));
    }
    template<typename List, typename Each>
    void list(const List &values, size_t, Each each) {
        number(static_cast<uint32_t>(values.size()));
        for (const auto &value : values) {
            each(value);
        }
    }
};

/// Reads until something is wrong; then `good` stays false and every value read is zero or empty.
class Decoder {
  public:
    explicit Decoder(std::string_view bytes) : rest_(bytes) {}

    bool good = true;
    bool atEnd() const { return rest_.empty(); }

    void number(uint32_t &value) {
        std::string_view taken = take(4);
        value = 0;
        for (size_t i = 0; i < taken.size(); i++) {
            value |= uint32_t{static_cast<unsigned char>(taken[i])} << (8 * i);
        }
    }
    void number(int32_t &value) {
        uint32_t bits = 0;
        number(bits);
        value = static_cast<int32_t>(bits);
    }
    void flag(bool &value) {
        uint32_t bits = 0;
        number(bits);
        good = good && bits <= 1;
        value = bits == 1;
    }
    void blob(std::string &value) {
        uint32_t size = 0;
        number(size);
        value = take(size);
    }
    /// Text becomes a C string: a zero byte would silently cut it.
    void text(std::string &value) {
        blob(value);
        good = good && value.find('\0') == std::string::npos;
    }
    template<typename Enum>
    void choice(Enum &value, Enum largest) {
        uint32_t bits = 0;
        number(bits);
        good = good && bits <= static_cast<uint32_t>(largest);
        value = good ? static_cast<Enum>(bits) : Enum{};
    }
    /// `smallest` is the least number of bytes an element takes, so that a false count cannot make us
    /// allocate more than the input is worth.
    template<typename List, typename Each>
    void list(List &values, size_t smallest, Each each) {
        uint32_t count = 0;
        number(count);
        good = good && count <= rest_.size() / smallest;
        values.clear();
        values.resize(good ? count : 0);
        for (auto &value : values) {
            each(value);
        }
    }

  private:
    std::string_view take(size_t size) {
        good = good && size <= rest_.size();
        if (!good) {
            return {};
        }
        std::string_view taken = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return taken;
    }

    std::string_view rest_;
};

/// The one list of an operation's fields, for both directions.
template<typename Coder, typename Op>
void opFields(Coder &coder, Op &op) {
    coder.choice(op.kind, OpKind::overlay);
    coder.text(op.target);
    coder.number(op.mode);
    coder.blob(op.data);
    coder.choice(op.source, SourceKind::mount);
    coder.text(op.sourcePath);
    coder.number(op.sourceFd);
    coder.number(op.flags);
}
constexpr size_t smallestOp = 8 * 4;

template<typename Coder, typename Value>
void fields(Coder &coder, Value &d) {
    coder.number(d.parentPid);
    coder.number(d.outputFd);
    coder.flag(d.pivot);
    coder.number(d.buildDirFd);
    coder.flag(d.readOnlyRoot);
    coder.flag(d.userNamespace);
    coder.flag(d.privateNetwork);
    coder.flag(d.classicMounts);
    coder.number(d.namespaces);
    coder.flag(d.privileged);
    coder.number(d.insideUid);
    coder.number(d.insideGid);
    coder.number(d.outsideUid);
    coder.number(d.outsideGid);
    coder.list(d.groups, 4, [&](auto &group) { coder.number(group); });
    coder.text(d.hostName);
    coder.text(d.domainName);
    coder.text(d.inputDirectory);
    coder.list(d.ops, smallestOp, [&](auto &op) { opFields(coder, op); });
    coder.blob(d.filter);
    coder.flag(d.noNewPrivileges);
    coder.number(d.personality);
    coder.number(d.descriptorLimit);
    coder.text(d.workingDirectory);
    coder.text(d.builder);
    coder.list(d.args, 4, [&](auto &arg) { coder.text(arg); });
    coder.list(d.env, 4, [&](auto &variable) { coder.text(variable); });
}

/// Absolute, and nothing in it that could lead elsewhere than its text says.
bool isPlainAbsolutePath(std::string_view path) {
    if (path.size() < 2 || path.size() > 4095 || path.front() != '/') {
        return false;
    }
    size_t start = 1;
    while (start <= path.size()) {
        size_t end = std::min(path.find('/', start), path.size());
        std::string_view part = path.substr(start, end - start);
        if (part.empty() || part == "." || part == ".." || part.size() > 255) {
            return false;
        }
        start = end + 1;
    }
    return true;
}

bool isSensible(const SetupOp &op) {
    bool hasSource = op.kind == OpKind::bind || op.kind == OpKind::overlay;
    bool namesSource = op.source == SourceKind::path
                           ? !op.sourcePath.empty() && op.sourceFd == -1
                           : op.source != SourceKind::none && op.sourceFd > 0 && op.sourcePath.empty();
    bool anySource = op.kind != OpKind::overlay && (op.flags & opExecutable) == 0;
    namesSource = namesSource && (anySource || op.source == SourceKind::descriptor);
    return isPlainAbsolutePath(op.target) && (op.mode & ~01777u) == 0 && (op.flags & ~allOpFlags) == 0 &&
           (hasSource ? namesSource : op.source == SourceKind::none);
}

/// Of a name in the directory, and with the flags that all of them share.
bool isSensibleInput(const SetupOp &op, const std::string &directory) {
    constexpr uint32_t others = opEarly | opEarlyIfRoom;
    return op.kind == OpKind::bind && op.source == SourceKind::path && isPlainAbsolutePath(op.sourcePath) &&
           (op.flags & ~others) == (opInput | opReadOnly | opNoDev) &&
           op.sourcePath.rfind('/') == directory.size() && op.sourcePath.starts_with(directory);
}

bool isSensible(const Description &d) {
    for (const SetupOp &op : d.ops) {
        bool isInput = (op.flags & opInput) != 0;
        if (!isSensible(op) || (isInput && !(d.pivot && isSensibleInput(op, d.inputDirectory)))) {
            return false;
        }
    }
    // Inside its own root a builder is never uid 0; without one it is what it is on the host.
    bool users = d.pivot ? d.insideUid != 0 && d.userNamespace : d.insideUid == d.outsideUid;
    bool known = d.insideUid != UINT32_MAX && d.outsideUid != UINT32_MAX;
    bool directory = d.buildDirFd == -1 || (d.buildDirFd > 0 && !d.pivot);
    bool network = !d.privateNetwork || d.userNamespace;
    return users && known && directory && network && d.outputFd > 0 && d.parentPid > 0 &&
           !d.builder.empty() && d.filter.size() % 8 == 0 && d.filter.size() / 8 <= 4096;
}

} // namespace

std::string encodeDescription(const Description &description) {
    Encoder encoder;
    encoder.number(magic);
    encoder.number(version);
    fields(encoder, description);
    return std::move(encoder.bytes);
}

std::optional<Description> decodeDescription(std::string_view bytes) {
    Decoder decoder(bytes);
    uint32_t itsMagic = 0, itsVersion = 0;
    decoder.number(itsMagic);
    decoder.number(itsVersion);
    if (!decoder.good || itsMagic != magic || itsVersion != version || bytes.size() > maxDescriptionSize) {
        return std::nullopt;
    }
    Description description;
    fields(decoder, description);
    if (!decoder.good || !decoder.atEnd() || !isSensible(description)) {
        return std::nullopt;
    }
    return description;
}

bool resolveDescriptors(Description &description, const std::vector<int> &descriptors) {
    bool good = true;
    auto resolve = [&](int32_t &place) {
        if (place < 0) {
            return; // there is none
        }
        bool there = static_cast<size_t>(place) < descriptors.size();
        good = good && there;
        place = there ? descriptors[static_cast<size_t>(place)] : -1;
    };
    resolve(description.outputFd);
    resolve(description.buildDirFd);
    for (SetupOp &op : description.ops) {
        resolve(op.sourceFd);
    }
    return good;
}

const char *stepName(Step step) {
    static constexpr const char *names[] = {
        "nothing",
        "reading the sandbox's description",
        "tying its life to the daemon's",
        "setting supplementary groups",
        "opening a file system object to show in the sandbox",
        "entering new namespaces",
        "mapping users into the user namespace",
        "becoming the build user",
        "making the sandbox's root",
        "making an executable mount of the build directory",
        "finding the directory to mount on",
        "making a directory",
        "making a file",
        "making a symlink",
        "making a mount point",
        "setting mount flags",
        "attaching a mount",
        "mounting a tmpfs",
        "mounting an overlay",
        "mounting the process file system",
        "mounting the pseudo terminal file system",
        "making the root read-only",
        "entering the sandbox's root",
        "setting the host name",
        "raising the loopback interface",
        "dropping capabilities",
        "forbidding new privileges",
        "loading the system call filter",
        "forking the builder",
        "connecting the builder's output",
        "setting resource limits",
        "setting the personality",
        "changing to the build directory",
        "executing the builder",
    };
    auto index = static_cast<size_t>(step);
    return index < std::size(names) ? names[index] : "an unknown step";
}

} // namespace firn::sandbox
