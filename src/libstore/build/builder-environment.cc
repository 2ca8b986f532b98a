#include "libstore/build/builder-environment.hh"

#include "libutil/error.hh"
#include "libutil/hash.hh"

namespace firn {

namespace {

StringMap inputRewrites(const BuilderEnvironmentInput &input) {
    StringMap rewrites;
    for (const auto &[name, scratch] : input.scratchPaths) {
        rewrites[outputPlaceholder(name)] = input.store.print(scratch);
        std::optional<StorePath> final = outputPath(input.store, input.derivation, name);
        if (final && *final != scratch) {
            rewrites[std::string(final->hashPart())] = scratch.hashPart();
        }
    }
    return rewrites;
}

std::string attributeFileName(const std::string &attribute) {
    return ".attr-" + hashString(HashAlgorithm::sha256, attribute).digits(Encoding::nix32);
}

void addAttributes(BuilderEnvironment &result, const BuilderEnvironmentInput &input) {
    for (const auto &[name, value] : input.derivation.env) {
        if (!input.passAsFile.contains(name)) {
            result.variables[name] = value;
            continue;
        }
        std::string file = attributeFileName(name);
        result.files[file] = value;
        result.variables[name + "Path"] = input.buildTop + "/" + file;
    }
}

void addStructuredFiles(BuilderEnvironment &result, const BuilderEnvironmentInput &input) {
    result.files[".attrs.json"] = input.structured->json;
    result.files[".attrs.sh"] = input.structured->shell;
    result.variables["NIX_ATTRS_JSON_FILE"] = input.buildTop + "/.attrs.json";
    result.variables["NIX_ATTRS_SH_FILE"] = input.buildTop + "/.attrs.sh";
}

void addDirectories(StringMap &variables, const std::string &buildTop) {
    for (const char *name : {"NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"}) {
        variables[name] = buildTop;
    }
}

/// What a build with network may know of the host: its result is checked, or nobody relies on it.
void addImpurities(StringMap &variables, const BuilderEnvironmentInput &input) {
    if (input.derivation.isFixedOutput()) {
        // Older builders skip checking a download's hash themselves when they see this.
        variables["NIX_OUTPUT_CHECKED"] = "1";
    }
    for (const std::string &name : input.impureEnvVars) {
        variables[name] = input.hostVariable ? input.hostVariable(name).value_or("") : "";
    }
}

void rewriteAll(BuilderEnvironment &result, const StringMap &rewrites) {
    StringMap rewritten;
    for (const auto &[name, value] : result.variables) {
        rewritten[rewriteText(name, rewrites)] = rewriteText(value, rewrites);
    }
    result.variables = std::move(rewritten);
    for (auto &[name, content] : result.files) {
        content = rewriteText(std::move(content), rewrites);
    }
    for (std::string &argument : result.args) {
        argument = rewriteText(std::move(argument), rewrites);
    }
    result.builder = rewriteText(std::move(result.builder), rewrites);
}

void checkVariables(const StringMap &variables) {
    for (const auto &[name, value] : variables) {
        if (name.empty() || name.find('=') != name.npos || name.find('\0') != name.npos ||
            value.find('\0') != value.npos) {
            throw Error(ErrorKind::badInput,
                        "environment variable '{}' of a derivation cannot be passed to a builder",
                        escapeForDisplay(name));
        }
    }
}

void checkWords(const std::string &builder, const std::vector<std::string> &args) {
    bool bad = builder.find('\0') != builder.npos;
    for (const std::string &arg : args) {
        bad = bad || arg.find('\0') != arg.npos;
    }
    if (bad) {
        throw Error(ErrorKind::badInput,
                    "builder '{}' of a derivation, or one of its arguments, holds a NUL byte",
                    escapeForDisplay(builder));
    }
}

} // namespace

std::vector<std::string> BuilderEnvironment::list() const {
    std::vector<std::string> result;
    result.reserve(variables.size());
    for (const auto &[name, value] : variables) {
        result.push_back(name + "=" + value);
    }
    return result;
}

BuilderEnvironment makeBuilderEnvironment(const BuilderEnvironmentInput &input) {
    BuilderEnvironment result;
    // Both show at once when a builder relies on something that is not among its inputs.
    result.variables["PATH"] = "/path-not-set";
    result.variables["HOME"] = "/homeless-shelter";
    result.variables["NIX_STORE"] = input.store.str();
    result.variables["NIX_BUILD_CORES"] = std::to_string(input.cores);
    result.files = input.files;
    if (input.structured) {
        addStructuredFiles(result, input);
    } else {
        addAttributes(result, input);
    }
    addDirectories(result.variables, input.buildTop);
    if (input.derivation.mayUseNetwork()) {
        addImpurities(result.variables, input);
    }
    result.variables["NIX_LOG_FD"] = "2";
    result.variables["TERM"] = "xterm-256color";

    const std::string &builder = input.derivation.builder;
    result.builder = builder;
    result.args.push_back(builder.substr(builder.rfind('/') + 1));
    result.args.insert(result.args.end(), input.derivation.args.begin(), input.derivation.args.end());
    rewriteAll(result, inputRewrites(input));
    checkVariables(result.variables);
    checkWords(result.builder, result.args);
    return result;
}

std::string rewriteText(std::string text, const StringMap &rewrites) {
    for (const auto &[from, to] : rewrites) {
        std::string rewritten;
        size_t begin = 0;
        for (size_t at = text.find(from); at != text.npos; at = text.find(from, begin)) {
            rewritten.append(text, begin, at - begin).append(to);
            begin = at + from.size();
        }
        if (begin > 0) {
            text = rewritten.append(text, begin);
        }
    }
    return text;
}

} // namespace firn
