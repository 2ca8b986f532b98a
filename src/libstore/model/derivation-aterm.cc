#include "libstore/model/derivation-aterm.hh"

#include <set>
#include <vector>

#include "libstore/model/derived-path.hh"
#include "libutil/error.hh"

// A .drv file is one ATerm without a single blank: strings in double quotes (escapes \" \\ \n \r \t, every
// other byte as it is), lists in brackets, tuples in parentheses. Outputs, input derivations, input sources
// and environment are sorted bytewise by their first string when Nix writes them; derivations are told apart
// by the hash of this text, so writing must give back each byte. Dynamic derivations (an experiment of Nix
// since 2.18) use another constructor, in which the list of wanted outputs may be a pair of that list and of
// what is wanted of derivations that are outputs, and so on:
//
//     NODE := ["out",...] | (["out",...],[("name",NODE),...])

namespace firn {

namespace {

constexpr size_t maxTextSize = size_t(64) << 20;
/// Each stands for a chain of names; Nix has no limit.
constexpr size_t maxDynamicNodes = 1 << 16;
/// Of the chains of names that lead to all of them, each written out: how they are asked for.
constexpr size_t maxDynamicBytes = 4 << 20;
constexpr std::string_view classicHead = "Derive(";
constexpr std::string_view dynamicHead = "DrvWithVersion(\"xp-dyn-drv\",";

class AtermReader {
  public:
    explicit AtermReader(std::string_view text) : text_(text) {}

    bool consume(std::string_view token) {
        if (!text_.substr(position_).starts_with(token)) {
            return false;
        }
        position_ += token.size();
        return true;
    }
    void expect(std::string_view token) {
        if (!consume(token)) {
            fail(fmt::format("'{}' was expected", token));
        }
    }
    void expectEnd() {
        if (position_ != text_.size()) {
            fail("there are bytes after the end of the derivation");
        }
    }
    std::string string();

    /// Calls `element` at each element of a list.
    template<typename Element>
    void list(Element element) {
        expect("[");
        if (consume("]")) {
            return;
        }
        do {
            element();
        } while (consume(","));
        expect("]");
    }

    [[noreturn]] void fail(std::string_view reason) const {
        throw Error(ErrorKind::badInput, "at byte {} of {}: {}", position_, text_.size(), reason);
    }

  private:
    char unescape();

    std::string_view text_;
    size_t position_ = 0;
};

std::string AtermReader::string() {
    expect("\"");
    std::string result;
    for (;;) {
        size_t next = text_.find_first_of("\"\\", position_);
        if (next == std::string_view::npos) {
            fail("a string does not end");
        }
        result += text_.substr(position_, next - position_);
        position_ = next + 1;
        if (text_[next] == '"') {
            return result;
        }
        result += unescape();
    }
}

/// The character after a backslash.
char AtermReader::unescape() {
    if (position_ == text_.size()) {
        fail("a string ends in a backslash");
    }
    switch (text_[position_++]) {
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case '"':
        return '"';
    case '\\':
        return '\\';
    }
    --position_;
    fail("an escape is none of \\n, \\r, \\t, \\\" and \\\\");
}

/// Reads the parts of one derivation into it.
class DerivationParser {
  public:
    DerivationParser(const StoreDir &store, std::string_view text, std::string_view name)
        : store_(store), reader_(text) {
        drv_.name = name;
    }
    Derivation parse();

  private:
    void head();
    void output();
    void inputDerivation();
    void dynamicNode(InputDerivation &root);
    struct DynamicNode {
        InputDerivation *input;
        size_t way; ///< bytes of the chain of names that leads to it
    };
    DynamicNode dynamicChild(const DynamicNode &parent);
    StringSet outputNames();
    void environmentVariable();

    const StoreDir &store_;
    AtermReader reader_;
    bool dynamic_ = false;
    size_t dynamicNodes_ = 0, dynamicBytes_ = 0;
    Derivation drv_;
};

Derivation DerivationParser::parse() {
    head();
    reader_.list([&] { output(); });
    reader_.expect(",");
    reader_.list([&] { inputDerivation(); });
    reader_.expect(",");
    reader_.list([&] {
        if (!drv_.inputSources.insert(store_.parse(reader_.string())).second) {
            reader_.fail("an input source is there twice");
        }
    });
    reader_.expect(",");
    drv_.platform = reader_.string();
    reader_.expect(",");
    drv_.builder = reader_.string();
    reader_.expect(",");
    reader_.list([&] { drv_.args.push_back(reader_.string()); });
    reader_.expect(",");
    reader_.list([&] { environmentVariable(); });
    reader_.expect(")");
    reader_.expectEnd();
    return std::move(drv_);
}

void DerivationParser::head() {
    dynamic_ = reader_.consume(dynamicHead);
    if (!dynamic_) {
        reader_.expect(classicHead);
    }
}

void DerivationParser::output() {
    reader_.expect("(");
    std::string name = reader_.string();
    DerivationOutputFields fields;
    for (std::string *field : {&fields.path, &fields.hashAlgorithm, &fields.hash}) {
        reader_.expect(",");
        *field = reader_.string();
    }
    reader_.expect(")");
    DerivationOutput output = parseDerivationOutput(store_, drv_.name, name, fields);
    if (!drv_.outputs.emplace(std::move(name), std::move(output)).second) {
        reader_.fail("an output is there twice");
    }
}

void DerivationParser::inputDerivation() {
    reader_.expect("(");
    StorePath path = store_.parse(reader_.string());
    if (!path.isDerivation()) {
        reader_.fail("an input derivation's path does not end in '.drv'");
    }
    auto [input, isNew] = drv_.inputDerivations.try_emplace(std::move(path));
    if (!isNew) {
        reader_.fail("an input derivation is there twice");
    }
    reader_.expect(",");
    if (dynamic_) {
        dynamicNode(input->second);
    } else {
        input->second.outputs = outputNames();
    }
    reader_.expect(")");
}

/// `open` are the nodes whose list of children is being read, outermost first.
void DerivationParser::dynamicNode(InputDerivation &root) {
    std::vector<DynamicNode> open;
    DynamicNode node{&root, 0};
    for (;;) {
        bool isPair = reader_.consume("(");
        node.input->outputs = outputNames();
        if (isPair) {
            reader_.expect(",[");
            if (open.size() == maxDynamicDepth) {
                reader_.fail("outputs of outputs are nested too deeply");
            }
            open.push_back(node);
            node = dynamicChild(node);
            continue;
        }
        for (;;) { // a node was complete: so may be those around it
            if (open.empty()) {
                return;
            }
            reader_.expect(")");
            if (reader_.consume(",")) {
                node = dynamicChild(open.back());
                break;
            }
            reader_.expect("])");
            open.pop_back();
        }
    }
}

DerivationParser::DynamicNode DerivationParser::dynamicChild(const DynamicNode &parent) {
    reader_.expect("(");
    auto [child, isNew] = parent.input->dynamic.try_emplace(reader_.string());
    if (!isNew) {
        reader_.fail("an output is there twice");
    }
    checkStorePathName(child->first);
    size_t way = parent.way + sizeof child->first + child->first.size();
    dynamicBytes_ += way;
    if (++dynamicNodes_ > maxDynamicNodes || dynamicBytes_ > maxDynamicBytes) {
        reader_.fail("too many outputs are wanted of outputs");
    }
    reader_.expect(",");
    return {&child->second, way};
}

StringSet DerivationParser::outputNames() {
    StringSet names;
    reader_.list([&] {
        auto [name, isNew] = names.insert(reader_.string());
        if (!isNew) {
            reader_.fail("an output's name is there twice");
        }
        checkStorePathName(*name);
    });
    return names;
}

void DerivationParser::environmentVariable() {
    reader_.expect("(");
    std::string name = reader_.string();
    reader_.expect(",");
    std::string value = reader_.string();
    reader_.expect(")");
    if (!drv_.env.emplace(std::move(name), std::move(value)).second) {
        reader_.fail("an environment variable is there twice");
    }
}

/// Appends to a text; knows commas.
class AtermWriter {
  public:
    void raw(std::string_view token) { text_ += token; }
    void string(std::string_view value);
    template<typename Range, typename Element>
    void list(const Range &range, Element element) {
        std::string_view separator = "[";
        for (const auto &value : range) {
            text_ += separator;
            element(value);
            separator = ",";
        }
        text_ += range.empty() ? "[]" : "]";
    }
    template<typename Range>
    void strings(const Range &range) {
        list(range, [&](const std::string &value) { string(value); });
    }
    std::string take() { return std::move(text_); }

  private:
    std::string text_;
};

std::string_view escaped(char c) {
    switch (c) {
    case '\n':
        return "\\n";
    case '\r':
        return "\\r";
    case '\t':
        return "\\t";
    case '"':
        return "\\\"";
    default:
        return "\\\\";
    }
}

void AtermWriter::string(std::string_view value) {
    text_ += '"';
    for (;;) {
        size_t special = value.find_first_of("\n\r\t\"\\");
        text_ += value.substr(0, special);
        if (special == std::string_view::npos) {
            break;
        }
        text_ += escaped(value[special]);
        value.remove_prefix(special + 1);
    }
    text_ += '"';
}

/// Writes a node of wanted outputs; `open` are the nodes whose children are being written.
void writeDynamicNode(AtermWriter &writer, const InputDerivation &root) {
    struct Frame {
        const InputDerivation *node;
        std::map<std::string, InputDerivation>::const_iterator next;
    };
    std::vector<Frame> open;
    auto begin = [&](const InputDerivation &node) {
        writer.raw(node.dynamic.empty() ? "" : "(");
        writer.strings(node.outputs);
        if (!node.dynamic.empty()) {
            writer.raw(",[");
            open.push_back({&node, node.dynamic.begin()});
        }
    };
    begin(root);
    while (!open.empty()) {
        auto [node, child] = open.back();
        if (child != node->dynamic.begin()) {
            writer.raw(")"); // of the child before
        }
        if (child == node->dynamic.end()) {
            writer.raw("])");
            open.pop_back();
            continue;
        }
        writer.raw(child == node->dynamic.begin() ? "(" : ",(");
        writer.string(child->first);
        writer.raw(",");
        ++open.back().next;
        begin(child->second);
    }
}

void writeOutput(AtermWriter &writer, const StoreDir &store, const Derivation &drv, const std::string &name,
                 bool mask) {
    DerivationOutputFields fields = printDerivationOutput(store, drv.name, name, drv.outputs.at(name));
    writer.raw("(");
    writer.string(name);
    writer.raw(",");
    writer.string(mask ? "" : fields.path);
    writer.raw(",");
    writer.string(fields.hashAlgorithm);
    writer.raw(",");
    writer.string(fields.hash);
    writer.raw(")");
}

void writeInputs(AtermWriter &writer, const StoreDir &store, const Derivation &drv,
                 const AtermOptions &options) {
    if (options.inputs) {
        writer.list(*options.inputs, [&](const auto &input) {
            writer.raw("(");
            writer.string(input.first);
            writer.raw(",");
            writer.strings(input.second);
            writer.raw(")");
        });
        return;
    }
    writer.list(drv.inputDerivations, [&](const auto &input) {
        writer.raw("(");
        writer.string(store.print(input.first));
        writer.raw(",");
        writeDynamicNode(writer, input.second);
        writer.raw(")");
    });
}

void writeEnvironment(AtermWriter &writer, const Derivation &drv, bool mask) {
    writer.list(drv.env, [&](const auto &variable) {
        writer.raw("(");
        writer.string(variable.first);
        writer.raw(",");
        writer.string(mask && drv.outputs.contains(variable.first) ? "" : variable.second);
        writer.raw(")");
    });
}

} // namespace

std::string writeAterm(const StoreDir &store, const Derivation &drv, const AtermOptions &options) {
    AtermWriter writer;
    writer.raw(drv.hasDynamicInputs() ? dynamicHead : classicHead);
    writer.list(drv.outputs, [&](const auto &output) {
        writeOutput(writer, store, drv, output.first, options.maskOutputs);
    });
    writer.raw(",");
    writeInputs(writer, store, drv, options);
    writer.raw(",");
    writer.list(drv.inputSources, [&](const StorePath &path) { writer.string(store.print(path)); });
    writer.raw(",");
    writer.string(drv.platform);
    writer.raw(",");
    writer.string(drv.builder);
    writer.raw(",");
    writer.strings(drv.args);
    writer.raw(",");
    writeEnvironment(writer, drv, options.maskOutputs);
    writer.raw(")");
    return writer.take();
}

Derivation parseDerivation(const StoreDir &store, std::string_view text, std::string_view name) {
    try {
        if (text.size() > maxTextSize) {
            throw Error(ErrorKind::badInput, "it has {} bytes; at most {} are allowed", text.size(),
                        maxTextSize);
        }
        return DerivationParser(store, text, name).parse();
    } catch (Error &error) {
        error.addContext(fmt::format("reading the derivation '{}'", escapeForDisplay(name, 300)));
        throw;
    }
}

std::string unparseDerivation(const StoreDir &store, const Derivation &drv) {
    return writeAterm(store, drv, {});
}

} // namespace firn
