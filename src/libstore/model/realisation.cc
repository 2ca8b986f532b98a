#include "libstore/model/realisation.hh"

#include <nlohmann/json.hpp>

#include "libutil/error.hh"

// The JSON is what Nix 2.8 to 2.34 send and sign: keys in alphabetic order, no blanks, store paths as base
// names without the store directory.

namespace firn {

namespace {

nlohmann::json fingerprintJson(const Realisation &realisation) {
    nlohmann::json dependent = nlohmann::json::object();
    for (const auto &[id, path] : realisation.dependentRealisations) {
        dependent[id.print()] = path.baseName();
    }
    return {
        {"dependentRealisations", std::move(dependent)},
        {"id", realisation.id.print()},
        {"outPath", realisation.outPath.baseName()},
    };
}

Realisation readRealisation(const nlohmann::json &json) {
    Realisation result{DrvOutput::parse(json.at("id").get_ref<const std::string &>()),
                       StorePath(json.at("outPath").get_ref<const std::string &>()),
                       {},
                       {}};
    if (auto signatures = json.find("signatures"); signatures != json.end()) {
        result.signatures = signatures->get<std::set<std::string>>();
    }
    if (auto dependent = json.find("dependentRealisations"); dependent != json.end()) {
        for (const auto &[id, path] : dependent->get_ref<const nlohmann::json::object_t &>()) {
            result.dependentRealisations.emplace(DrvOutput::parse(id),
                                                 StorePath(path.get_ref<const std::string &>()));
        }
    }
    return result;
}

} // namespace

std::string DrvOutput::print() const {
    return drvHash.prefixed(Encoding::base16) + "!" + outputName;
}

DrvOutput DrvOutput::parse(std::string_view text) {
    size_t separator = text.find('!');
    if (separator == std::string_view::npos) {
        throw Error(ErrorKind::badInput, "'{}' is not a derivation output: it must be HASH!OUTPUT",
                    escapeForDisplay(text));
    }
    std::string_view outputName = text.substr(separator + 1);
    checkStorePathName(outputName);
    return DrvOutput{Hash::parse(text.substr(0, separator)), std::string(outputName)};
}

std::string Realisation::fingerprint() const {
    return fingerprintJson(*this).dump();
}

std::string Realisation::toJson() const {
    nlohmann::json json = fingerprintJson(*this);
    json["signatures"] = signatures;
    try {
        return json.dump();
    } catch (const nlohmann::json::exception &error) { // a signature that is not UTF-8
        throw Error(ErrorKind::badInput, "writing the realisation of '{}' as JSON: {}", id.print(),
                    error.what());
    }
}

Realisation Realisation::parseJson(std::string_view json) {
    try {
        return readRealisation(nlohmann::json::parse(json));
    } catch (const nlohmann::json::exception &error) {
        throw Error(ErrorKind::badInput, "'{}' is not a realisation: {}", escapeForDisplay(json, 200),
                    escapeForDisplay(error.what(), 400));
    } catch (Error &error) {
        error.addContext(fmt::format("reading the realisation '{}'", escapeForDisplay(json, 200)));
        throw;
    }
}

} // namespace firn
