#include "libstore/build/build-log.hh"

#include <utility>

#include <bzlib.h>
#include <fcntl.h>

#include <nlohmann/json.hpp>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

constexpr std::string_view messagePrefix = "@nix ";
constexpr size_t maxActivities = 256;  // open at once, of one builder
constexpr size_t maxFields = 16;       // of one message
constexpr size_t maxTextLength = 4096; // of one message's text
constexpr size_t maxTailLine = 4096;

using Json = nlohmann::json;

/// Nothing a builder sends has structure below an array of fields.
bool isShallow(int depth, Json::parse_event_t, Json &) {
    return depth <= 4;
}

bool readNumber(const Json &object, const char *key, uint64_t &result) {
    auto found = object.find(key);
    if (found == object.end() || !found->is_number_unsigned()) {
        return false;
    }
    result = found->get<uint64_t>();
    return true;
}

bool readText(const Json &object, const char *key, std::string &result) {
    auto found = object.find(key);
    if (found == object.end() || !found->is_string()) {
        return false;
    }
    result = found->get_ref<const std::string &>();
    return true;
}

bool readFields(const Json &object, LogFields &result) {
    auto found = object.find("fields");
    if (found == object.end()) {
        return true;
    }
    if (!found->is_array() || found->size() > maxFields) {
        return false;
    }
    for (const Json &field : *found) {
        if (field.is_number_unsigned()) {
            result.emplace_back(field.get<uint64_t>());
        } else if (field.is_string()) {
            result.emplace_back(escapeForDisplay(field.get_ref<const std::string &>(), maxTextLength));
        } else {
            return false;
        }
    }
    return true;
}

bool readMessage(const Json &object, BuilderMessage &message) {
    std::string action;
    if (!object.is_object() || !readText(object, "action", action)) {
        return false;
    }
    if (action == "start") {
        message.action = BuilderMessage::Action::startActivity;
        readNumber(object, "level", message.level);
        readText(object, "text", message.text);
        return readNumber(object, "id", message.id) && readNumber(object, "type", message.type) &&
               readFields(object, message.fields);
    }
    if (action == "stop") {
        message.action = BuilderMessage::Action::stopActivity;
        return readNumber(object, "id", message.id);
    }
    if (action == "result") {
        message.action = BuilderMessage::Action::result;
        return readNumber(object, "id", message.id) && readNumber(object, "type", message.type) &&
               readFields(object, message.fields);
    }
    if (action == "setPhase") {
        message.action = BuilderMessage::Action::setPhase;
        return readText(object, "phase", message.text);
    }
    message.action = BuilderMessage::Action::message;
    readNumber(object, "level", message.level);
    return action == "msg" && readText(object, "msg", message.text);
}

/// Length of the colour sequence (ESC '[' digits and ';' 'm') that `text` begins with, or 0.
size_t colourSequenceLength(std::string_view text) {
    if (!text.starts_with("\x1b[")) {
        return 0;
    }
    size_t end = text.find_first_not_of("0123456789;", 2);
    return end != text.npos && text[end] == 'm' ? end + 1 : 0;
}

/// Erasing (part of) the line, as programs do that rewrite a progress line: means nothing where every line is
/// shown once.
size_t eraseSequenceLength(std::string_view text) {
    for (std::string_view erase : {"\x1b[K", "\x1b[0K", "\x1b[1K", "\x1b[2K"}) {
        if (text.starts_with(erase)) {
            return erase.size();
        }
    }
    return 0;
}

bool isControl(char c) {
    auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7f;
}

} // namespace

// ---- lines

void LineSplitter::write(std::string_view bytes) {
    for (char c : bytes) {
        if (c == '\r') {
            position_ = 0;
        } else if (c == '\n') {
            emit();
        } else {
            if (position_ == maxLength) {
                emit();
            }
            if (position_ == line_.size()) {
                line_.push_back(c);
            } else {
                line_[position_] = c;
            }
            position_++;
        }
    }
}

void LineSplitter::finish() {
    if (!line_.empty()) {
        emit();
    }
}

void LineSplitter::emit() {
    std::string line;
    line.swap(line_);
    position_ = 0;
    onLine_(line);
}

// ---- messages

std::optional<BuilderMessage> parseBuilderMessage(std::string_view line) {
    if (!line.starts_with(messagePrefix)) {
        return std::nullopt;
    }
    line.remove_prefix(messagePrefix.size());
    Json object = Json::parse(line.begin(), line.end(), isShallow, /*allow_exceptions=*/false);
    BuilderMessage message;
    if (object.is_discarded() || !readMessage(object, message)) {
        return std::nullopt;
    }
    message.text = escapeForDisplay(message.text, maxTextLength);
    return message;
}

std::string escapeLogLine(std::string_view line) {
    std::string result;
    result.reserve(line.size());
    while (!line.empty()) {
        size_t colour = colourSequenceLength(line);
        if (colour > 0) {
            result.append(line.substr(0, colour));
            line.remove_prefix(colour);
            continue;
        }
        if (size_t erase = eraseSequenceLength(line); erase > 0) {
            line.remove_prefix(erase);
            continue;
        }
        if (isControl(line.front())) {
            result += fmt::format("\\x{:02x}", static_cast<unsigned char>(line.front()));
        } else {
            result.push_back(line.front());
        }
        line.remove_prefix(1);
    }
    return result;
}

// ---- the file

struct LogFile::Compressor {
    bz_stream stream = {};

    Compressor() {
        if (BZ2_bzCompressInit(&stream, 9, 0, 0) != BZ_OK) {
            throw Error(ErrorKind::failure, "starting bzip2 for a build log: out of memory");
        }
    }
    ~Compressor() { BZ2_bzCompressEnd(&stream); }
};

LogFile::LogFile(const std::filesystem::path &path) : path_(path) {
    makeDirectories(path.parent_path());
    fd_.reset(open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
    if (!fd_) {
        throwErrno("creating build log '{}'", path.string());
    }
    if (path.extension() == ".bz2") {
        compressor_ = std::make_unique<Compressor>();
    }
}

LogFile::~LogFile() = default;
LogFile::LogFile(LogFile &&) noexcept = default;

void LogFile::write(std::string_view bytes) {
    if (!compressor_) {
        writeFull(fd_.get(), bytes);
        return;
    }
    compressor_->stream.next_in = const_cast<char *>(bytes.data());
    compressor_->stream.avail_in = static_cast<unsigned>(bytes.size());
    while (compressor_->stream.avail_in > 0) {
        compress(BZ_RUN);
    }
}

void LogFile::finish() {
    if (compressor_) {
        compress(BZ_FINISH);
        compressor_.reset();
    }
    fd_.reset();
}

void LogFile::compress(int action) {
    char buffer[16 * 1024];
    int state;
    do {
        compressor_->stream.next_out = buffer;
        compressor_->stream.avail_out = sizeof buffer;
        state = BZ2_bzCompress(&compressor_->stream, action);
        if (state < 0) {
            throw Error(ErrorKind::failure, "compressing build log '{}': bzip2 error {}", path_.string(),
                        state);
        }
        writeFull(fd_.get(), std::string_view(buffer, sizeof buffer - compressor_->stream.avail_out));
    } while (action == BZ_FINISH && state != BZ_STREAM_END);
}

// ---- all of it

BuildLog::BuildLog(Logger &logger, Activity &activity, std::optional<LogFile> file, size_t tailLength)
    : logger_(logger),
      activity_(activity),
      file_(std::move(file)),
      tailLength_(tailLength),
      splitter_([this](std::string_view line) { handleLine(line); }) {}

void BuildLog::write(std::string_view bytes) {
    size_ += bytes.size();
    if (file_) {
        file_->write(bytes);
    }
    splitter_.write(bytes);
}

void BuildLog::finish() {
    // The file first: the client, who is told the rest, may have gone.
    if (std::optional<LogFile> file = std::exchange(file_, std::nullopt)) {
        file->finish();
    }
    endOutput();
}

void BuildLog::endOutput() {
    splitter_.finish();
    activities_.clear();
}

void BuildLog::note(std::string_view line) {
    if (file_) {
        file_->write(std::string(line) + "\n");
    }
}

void BuildLog::handleLine(std::string_view line) {
    if (std::optional<BuilderMessage> message = parseBuilderMessage(line)) {
        handleMessage(*message);
        return;
    }
    std::string shown = escapeLogLine(line);
    activity_.result(ResultType::buildLogLine, {shown});
    tail_.push_back(shown.substr(0, maxTailLine));
    if (tail_.size() > tailLength_) {
        tail_.pop_front();
    }
}

void BuildLog::handleMessage(const BuilderMessage &message) {
    switch (message.action) {
    case BuilderMessage::Action::startActivity:
        startActivity(message);
        break;
    case BuilderMessage::Action::stopActivity:
        activities_.erase(message.id);
        break;
    case BuilderMessage::Action::result:
        if (auto found = activities_.find(message.id); found != activities_.end()) {
            found->second->result(static_cast<ResultType>(message.type), message.fields);
        }
        break;
    case BuilderMessage::Action::setPhase:
        activity_.result(ResultType::setPhase, {message.text});
        break;
    case BuilderMessage::Action::message:
        // A build must not be able to print what looks like the daemon's errors.
        logger_.log(std::max(static_cast<Verbosity>(std::min<uint64_t>(message.level, 7)), Verbosity::notice),
                    message.text);
        break;
    }
}

/// Builds may only report downloads of theirs: anything else would let them forge what the daemon does.
void BuildLog::startActivity(const BuilderMessage &message) {
    if (static_cast<ActivityType>(message.type) != ActivityType::fileTransfer ||
        activities_.size() >= maxActivities || activities_.contains(message.id)) {
        return;
    }
    auto level = static_cast<Verbosity>(std::min<uint64_t>(message.level, 7));
    activities_.emplace(message.id, std::make_unique<Activity>(logger_, level, ActivityType::fileTransfer,
                                                               message.text, message.fields, activity_.id()));
}

} // namespace firn
