#include "libstore/build/builtin-builder.hh"

#include <array>
#include <cerrno>
#include <map>
#include <set>
#include <utility>

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/stream.hh"

extern char **environ;

namespace firn {

namespace {

constexpr std::string_view prefix = "builtin:";
constexpr const char *folderInside = "/firn-builtin";
constexpr uint64_t maxListing = 1024 * 1024;       // bytes of file names
constexpr uint64_t maxHostFile = 16 * 1024 * 1024; // certificates, netrc

std::string_view nameOf(const BasicDerivation &derivation) {
    return std::string_view(derivation.builder).substr(prefix.size());
}

std::string baseName(const std::string &path) {
    return path.substr(path.rfind('/') + 1);
}

// ---- the program

/// With our own environment: its libraries may be where LD_LIBRARY_PATH says.
pid_t spawnListing(const std::string &program, int output) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
    std::string name = "firn-builtin", option = "--files";
    std::array<char *, 3> args{name.data(), option.data(), nullptr};
    pid_t pid = -1;
    int error = posix_spawn(&pid, program.c_str(), &actions, nullptr, args.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error != 0) {
        throw SysError(error, fmt::format("starting '{}'", program));
    }
    return pid;
}

bool succeeded(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            throwErrno("waiting for process {}", pid);
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::string listFiles(const std::string &program) {
    Pipe pipe = makePipe();
    pid_t pid = spawnListing(program, pipe.writeEnd.get());
    pipe.writeEnd.reset();
    FdSource source(pipe.readEnd.get());
    LimitedSource limited(source, maxListing);
    StringSink listing;
    copyAll(limited, listing);
    pipe.readEnd.reset();
    if (!succeeded(pid)) {
        throw Error(ErrorKind::unsupported, "'{}', which does the work of builtin builders, does not run",
                    program);
    }
    return std::move(listing.text);
}

/// First the loader's path or an empty line, then the libraries', a line each.
BuiltinProgram parseListing(const std::string &program, std::string_view listing) {
    BuiltinProgram result{program, {}, {}};
    for (bool first = true; !listing.empty(); first = false) {
        size_t end = std::min(listing.find('\n'), listing.size());
        std::string line(listing.substr(0, end));
        listing.remove_prefix(std::min(end + 1, listing.size()));
        if (first) {
            result.loader = line;
        } else {
            result.libraries.push_back(line);
        }
    }
    return result;
}

// ---- its environment

/// The attributes that the builders in src/builtin/ ask for.
bool reads(std::string_view builtin, std::string_view attribute) {
    static const std::map<std::string_view, std::set<std::string_view>> names{
        {"fetchurl", {"url", "executable", "unpack"}},
        {"buildenv", {"derivations", "manifest"}},
        {"unpack-channel", {"src", "channelName"}},
    };
    auto found = names.find(builtin);
    return found != names.end() && found->second.contains(attribute);
}

/// nullopt for an object, and for a list, which has its own loop.
std::optional<std::string> plainScalar(const nlohmann::json &value) {
    if (value.is_structured()) {
        return std::nullopt;
    }
    if (value.is_string()) {
        return value.get<std::string>();
    }
    if (value.is_boolean()) {
        return value.get<bool>() ? "1" : "";
    }
    return value.is_null() ? "" : value.dump();
}

/// The text that Nix makes of the value of an attribute that is not structured: lists, and those in them,
/// become words. nullopt where there is an object, which has none.
std::optional<std::string> plainValue(const nlohmann::json &value) {
    if (!value.is_array()) {
        return plainScalar(value);
    }
    std::string words;
    const char *separator = "";
    // Instead of recursion: what is left of each list that is being read.
    std::vector<std::pair<nlohmann::json::const_iterator, nlohmann::json::const_iterator>> open{
        {value.begin(), value.end()}};
    while (!open.empty()) {
        auto &[next, end] = open.back();
        if (next == end) {
            open.pop_back();
            continue;
        }
        const nlohmann::json &element = *next++;
        if (element.is_array()) {
            open.emplace_back(element.begin(), element.end());
            continue;
        }
        std::optional<std::string> word = plainScalar(element);
        if (!word) {
            return std::nullopt;
        }
        words.append(std::exchange(separator, " ")).append(*word);
    }
    return words;
}

/// Those without a plain form are left out, unless the builder asks for them.
void addStructured(StringMap &attributes, const std::string &text, const BasicDerivation &derivation) {
    nlohmann::json all = nlohmann::json::parse(text);
    for (const auto &[name, value] : all.items()) {
        if (std::optional<std::string> plain = plainValue(value)) {
            attributes[name] = *plain;
        } else if (reads(nameOf(derivation), name)) {
            throw Error(ErrorKind::badInput,
                        "attribute '{}' is a set or has one in it, and '{}' can read text and lists alone",
                        name, derivation.builder);
        }
    }
    for (const auto &[name, path] : all.at("outputs").items()) {
        attributes[name] = path.get<std::string>();
    }
}

std::string encodeAttributes(const StringMap &attributes) {
    std::string bytes;
    for (const auto &[name, value] : attributes) {
        if (name.find('=') != name.npos || name.find('\0') != name.npos || value.find('\0') != value.npos) {
            throw Error(ErrorKind::badInput, "attribute {} cannot be passed to a builtin builder",
                        quoteForDisplay(name));
        }
        bytes.append(name).append("=").append(value).push_back('\0');
    }
    return bytes;
}

/// Stock Nix downloads within the daemon's own environment, where libcurl finds these.
void addProxies(StringMap &variables, const BuilderEnvironmentInput &input) {
    for (const char *name :
         {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}) {
        if (std::optional<std::string> value = input.hostVariable ? input.hostVariable(name) : std::nullopt) {
            variables[name] = *value;
        }
    }
}

/// The builder can see neither file: it has another user and another file system. One that is not there is no
/// mistake.
void addHostFile(BuilderEnvironment &result, const char *name, const std::string &path, Logger &logger) {
    if (path.empty()) {
        return;
    }
    try {
        result.files[name] = readFile(path, maxHostFile);
    } catch (const SysError &error) {
        if (error.number() != ENOENT && error.number() != ENOTDIR) {
            logger.warn(error.message());
        }
    }
}

void addOptions(BuilderEnvironment &result, const BuilderEnvironmentInput &input, const Settings &settings) {
    auto add = [&](const char *name, const auto &value) {
        result.args.push_back(fmt::format("{}={}", name, value));
    };
    add("certificates", settings.sslCertFile);
    add("connect-timeout", settings.connectTimeout);
    add("stalled-download-timeout", settings.stalledDownloadTimeout);
    add("download-attempts", settings.downloadAttempts);
    add("http2", settings.http2 ? 1 : 0);
    add("user-agent-suffix", settings.userAgentSuffix);
    const auto *fixed = std::get_if<FixedOutput>(&input.derivation.outputs.at("out"));
    if (!fixed || fixed->address.method != ContentMethod::flat) {
        return;
    }
    for (const std::string &mirror : settings.hashedMirrors) {
        const char *slash = mirror.ends_with('/') ? "" : "/";
        const Hash &hash = fixed->address.hash;
        std::string path = hash.prefixed(Encoding::base16);
        path[path.find(':')] = '/';
        add("hashed-mirror", mirror + slash + path);
    }
}

} // namespace

std::optional<std::string> refuseBuiltin(const BasicDerivation &derivation) {
    std::string_view name = nameOf(derivation);
    if (name != "fetchurl" && name != "buildenv" && name != "unpack-channel") {
        return fmt::format("unsupported builtin builder {}", quoteForDisplay(name));
    }
    if (!derivation.outputs.contains("out")) {
        return fmt::format("'{}' makes an output called 'out', and the derivation has none",
                           derivation.builder);
    }
    // The network, and passwords for it, are for those whose result is checked, or taken as it comes.
    if (name == "fetchurl" && !derivation.mayUseNetwork()) {
        return "'builtin:fetchurl' must be a fixed-output or impure derivation";
    }
    return std::nullopt;
}

std::vector<SandboxPath> BuiltinProgram::sandboxPaths() const {
    std::string folder = std::string(folderInside) + "/";
    std::vector<SandboxPath> paths{{folder + "firn-builtin", program, false, true}};
    for (const std::string &library : libraries) {
        paths.push_back({folder + baseName(library), library, false, true});
    }
    return paths;
}

std::vector<std::string> BuiltinProgram::command(bool sandboxed) const {
    if (!sandboxed) {
        return {program};
    }
    std::string folder = folderInside, inside = folder + "/firn-builtin";
    if (loader.empty()) {
        return {inside};
    }
    return {folder + "/" + baseName(loader), "--library-path", folder, inside};
}

const BuiltinProgram &findBuiltinProgram(const std::string &program) {
    static std::map<std::string, BuiltinProgram> known;
    auto found = known.find(program);
    if (found == known.end()) {
        found = known.emplace(program, parseListing(program, listFiles(program))).first;
    }
    return found->second;
}

BuilderEnvironment makeBuiltinEnvironment(BuilderEnvironmentInput input, const Settings &settings,
                                          const std::vector<std::string> &command, Logger &logger) {
    std::string structured = input.structured ? input.structured->json : "";
    input.structured.reset();
    input.passAsFile.clear();
    input.impureEnvVars.clear();
    input.files.clear();
    StringMap attributes = makeBuilderEnvironment(input).variables;
    if (!structured.empty()) {
        addStructured(attributes, structured, input.derivation);
    }

    BuilderEnvironment result;
    result.files[builtinAttributesFile] = encodeAttributes(attributes);
    result.variables = {{"HOME", "/homeless-shelter"}, {"TMPDIR", input.buildTop}, {"LC_ALL", "C.UTF-8"}};
    result.builder = command.front();
    result.args = command;
    result.args.emplace_back(nameOf(input.derivation));
    if (nameOf(input.derivation) == "fetchurl") {
        addProxies(result.variables, input);
        addOptions(result, input, settings);
        addHostFile(result, builtinCertificatesFile, settings.sslCertFile, logger);
        addHostFile(result, builtinNetrcFile, settings.netrcFile, logger);
    }
    return result;
}

} // namespace firn
