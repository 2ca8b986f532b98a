#include "libstore/model/derivation-options.hh"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "libutil/config-file.hh"
#include "libutil/error.hh"

namespace firn {

namespace {

using Json = nlohmann::json;

[[noreturn]] void throwWrongType(const std::string &drvName, const std::string &attribute,
                                 std::string_view type) {
    throw Error(ErrorKind::badInput, "the attribute '{}' of the derivation '{}' must be {}",
                escapeForDisplay(attribute, 300), escapeForDisplay(drvName, 300), type);
}

StringSet toSet(const std::vector<std::string> &words) {
    return {words.begin(), words.end()};
}

/// The attributes of one derivation, in whichever form they come. Only what both forms have.
class Attributes {
  public:
    virtual ~Attributes() = default;
    virtual bool boolean(const std::string &name, bool otherwise) const = 0;
    virtual std::string string(const std::string &name) const = 0;
    virtual std::optional<StringSet> strings(const std::string &name) const = 0;
    StringSet stringsOrNone(const std::string &name) const { return strings(name).value_or(StringSet()); }
};

class EnvironmentAttributes : public Attributes {
  public:
    explicit EnvironmentAttributes(const StringMap &env) : env_(env) {}

    bool boolean(const std::string &name, bool otherwise) const override {
        auto variable = env_.find(name);
        return variable == env_.end() ? otherwise : variable->second == "1";
    }
    std::string string(const std::string &name) const override {
        auto variable = env_.find(name);
        return variable == env_.end() ? "" : variable->second;
    }
    std::optional<StringSet> strings(const std::string &name) const override {
        auto variable = env_.find(name);
        if (variable == env_.end()) {
            return std::nullopt;
        }
        return toSet(splitWords(variable->second));
    }

  private:
    const StringMap &env_;
};

/// Members of a JSON object; `path_` ("outputChecks.out.") is for messages.
class JsonAttributes : public Attributes {
  public:
    JsonAttributes(const Json &object, const std::string &drvName, std::string path = "")
        : object_(object), drvName_(drvName), path_(std::move(path)) {
        if (!object.is_object()) {
            throwWrongType(drvName, path_.empty() ? "__json" : path_.substr(0, path_.size() - 1),
                           "an object");
        }
    }

    const Json *find(const std::string &name) const {
        auto member = object_.find(name);
        return member == object_.end() ? nullptr : &*member;
    }
    JsonAttributes inside(const std::string &name) const {
        return JsonAttributes(object_.at(name), drvName_, path_ + name + ".");
    }
    std::vector<std::string> names() const {
        std::vector<std::string> result;
        for (const auto &[name, value] : object_.items()) {
            result.push_back(name);
        }
        return result;
    }
    [[noreturn]] void throwType(const std::string &name, std::string_view type) const {
        throwWrongType(drvName_, path_ + name, type);
    }

    bool boolean(const std::string &name, bool otherwise) const override {
        const Json *value = find(name);
        if (value && !value->is_boolean()) {
            throwType(name, "a Boolean");
        }
        return value ? value->get<bool>() : otherwise;
    }
    std::string string(const std::string &name) const override {
        const Json *value = find(name);
        if (value && !value->is_string()) {
            throwType(name, "a string");
        }
        return value ? value->get<std::string>() : "";
    }
    std::optional<std::vector<std::string>> list(const std::string &name) const {
        const Json *value = find(name);
        if (!value) {
            return std::nullopt;
        }
        bool good = value->is_array() &&
                    std::all_of(value->begin(), value->end(), [](const Json &e) { return e.is_string(); });
        if (!good) {
            throwType(name, "a list of strings");
        }
        return value->get<std::vector<std::string>>();
    }
    std::optional<StringSet> strings(const std::string &name) const override {
        std::optional<std::vector<std::string>> words = list(name);
        return words ? std::optional(toSet(*words)) : std::nullopt;
    }
    std::optional<uint64_t> size(const std::string &name) const {
        const Json *value = find(name);
        if (!value) {
            return std::nullopt;
        }
        if (!value->is_number_unsigned()) {
            throwType(name, "a whole number of bytes");
        }
        return value->get<uint64_t>();
    }

  private:
    const Json &object_;
    const std::string &drvName_;
    std::string path_;
};

OutputChecks readLists(const Attributes &attributes) {
    OutputChecks checks;
    checks.allowedReferences = attributes.strings("allowedReferences");
    checks.disallowedReferences = attributes.strings("disallowedReferences");
    checks.allowedRequisites = attributes.strings("allowedRequisites");
    checks.disallowedRequisites = attributes.strings("disallowedRequisites");
    return checks;
}

void readCommon(DerivationOptions &options, const Attributes &attributes) {
    options.sandboxProfile = attributes.string("__sandboxProfile");
    options.noChroot = attributes.boolean("__noChroot", false);
    options.impureHostDeps = attributes.stringsOrNone("__impureHostDeps");
    options.impureEnvVars = attributes.stringsOrNone("impureEnvVars");
    options.allowLocalNetworking = attributes.boolean("__darwinAllowLocalNetworking", false);
    options.requiredSystemFeatures = attributes.stringsOrNone("requiredSystemFeatures");
    options.preferLocalBuild = attributes.boolean("preferLocalBuild", false);
    options.allowSubstitutes = attributes.boolean("allowSubstitutes", true);
}

/// The name becomes a file in the build directory.
void checkGraphFileName(const BasicDerivation &drv, std::string_view name) {
    auto isLetter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
    bool good = !name.empty() && isLetter(name[0]) && std::all_of(name.begin(), name.end(), [&](char c) {
        return isLetter(c) || (c >= '0' && c <= '9') || c == '.' || c == '-';
    });
    if (!good) {
        throw Error(ErrorKind::badInput,
                    "invalid file name '{}' in 'exportReferencesGraph' of the derivation '{}'",
                    escapeForDisplay(name, 300), escapeForDisplay(drv.name, 300));
    }
}

void readGraphWords(DerivationOptions &options, const BasicDerivation &drv, const std::string &value) {
    std::vector<std::string> words = splitWords(value);
    if (words.size() % 2 != 0) {
        throw Error(
            ErrorKind::badInput,
            "odd number of tokens in 'exportReferencesGraph' of the derivation '{}': it must be pairs of a "
            "file name and a store path",
            escapeForDisplay(drv.name, 300));
    }
    for (size_t i = 0; i < words.size(); i += 2) {
        checkGraphFileName(drv, words[i]);
        options.exportReferencesGraph[words[i]] = {words[i + 1]};
    }
}

void readEnvironment(DerivationOptions &options, const BasicDerivation &drv) {
    EnvironmentAttributes attributes(drv.env);
    readCommon(options, attributes);
    options.checksForAll = readLists(attributes);
    options.checksForAll.ignoreSelfReferences = true;
    options.passAsFile = attributes.stringsOrNone("passAsFile");
    readGraphWords(options, drv, attributes.string("exportReferencesGraph"));
}

void readOutputChecks(DerivationOptions &options, const JsonAttributes &perOutput) {
    for (const std::string &name : perOutput.names()) {
        JsonAttributes attributes = perOutput.inside(name);
        OutputChecks checks = readLists(attributes);
        checks.maxSize = attributes.size("maxSize");
        checks.maxClosureSize = attributes.size("maxClosureSize");
        options.checksPerOutput.emplace(name, std::move(checks));
    }
}

void readGraphObject(DerivationOptions &options, const JsonAttributes &graph) {
    for (const std::string &name : graph.names()) {
        if (graph.find(name)->is_string()) {
            options.exportReferencesGraph[name] = {graph.string(name)};
        } else {
            options.exportReferencesGraph[name] = *graph.list(name);
        }
    }
}

void readStructured(DerivationOptions &options, const BasicDerivation &drv, const Json &json) {
    JsonAttributes attributes(json, drv.name);
    readCommon(options, attributes);
    if (attributes.find("outputChecks")) {
        readOutputChecks(options, attributes.inside("outputChecks"));
    }
    if (attributes.find("exportReferencesGraph")) {
        readGraphObject(options, attributes.inside("exportReferencesGraph"));
    }
    if (attributes.find("unsafeDiscardReferences")) {
        JsonAttributes discard = attributes.inside("unsafeDiscardReferences");
        for (const std::string &name : discard.names()) {
            options.unsafeDiscardReferences[name] = discard.boolean(name, false);
        }
    }
}

} // namespace

const OutputChecks &DerivationOptions::checksFor(const std::string &outputName) const {
    auto checks = checksPerOutput.find(outputName);
    return checks == checksPerOutput.end() ? checksForAll : checks->second;
}

DerivationOptions readDerivationOptions(const BasicDerivation &drv) {
    DerivationOptions options;
    auto structured = drv.env.find("__json");
    if (structured == drv.env.end()) {
        readEnvironment(options, drv);
        return options;
    }
    options.structured = true;
    try {
        readStructured(options, drv, Json::parse(structured->second));
    } catch (const Json::exception &error) {
        throw Error(ErrorKind::badInput, "cannot process the '__json' attribute of the derivation '{}': {}",
                    escapeForDisplay(drv.name, 300), escapeForDisplay(error.what(), 400));
    }
    return options;
}

} // namespace firn
