#include <cstdio>
#include <map>
#include <memory>
#include <thread>

#include <fcntl.h>
#include <nlohmann/json.hpp>

#include "firn/macho/description.hh"
#include "firn/macho/file-bytes.hh"
#include "firn/macho/json-list.hh"
#include "firn/macho/macho.hh"
#include "firn/macho/progress.hh"
#include "firn/macho/report-merge.hh"
#include "firn/macho/tree-walk.hh"
#include "firn/macho/work-pool.hh"
#include "libutil/error.hh"

// One thread walks and opens; the others verify files, and pieces of large files. What was found is printed
// in the order of the walk, whichever is ready first.

namespace firn {

namespace {

/// What is known of one file, or of a directory that could not be read.
struct Outcome {
    std::string path;
    bool given = false; ///< named on the command line
    MachoReport report;
    std::string problem; ///< why it could not be read

    Verdict verdict() const { return problem.empty() ? verdictOf(report) : Verdict::notJudged; }
    bool troubled() const { return !problem.empty() || report.anyProblem(); }
};

struct Counts {
    uint64_t files = 0, bytes = 0; ///< regular files looked at, and what is in them
    std::map<Verdict, uint64_t> verdicts;
    uint64_t slices = 0;
    bool anyTrouble = false;
};

/// Prints outcomes in the order of their numbers. Thread-safe.
class Printer {
  public:
    Printer(bool json, Progress &progress) : progress_(progress) {
        if (json) {
            list_.emplace();
        }
    }

    /// A number for the next outcome. Waits where too many are not printed yet.
    uint64_t reserve() {
        std::unique_lock lock(mutex_);
        printed_.wait(lock, [this] { return reserved_ - next_ < maxPending; });
        return reserved_++;
    }
    void put(uint64_t number, Outcome outcome) {
        std::lock_guard lock(mutex_);
        pending_.emplace(number, std::move(outcome));
        for (auto first = pending_.begin(); first != pending_.end() && first->first == next_;
             first = pending_.erase(first), ++next_) {
            print(first->second);
        }
        printed_.notify_all();
    }
    void countFile(uint64_t size) {
        std::lock_guard lock(mutex_);
        ++counts_.files;
        counts_.bytes += size;
    }
    /// After everything: the summary. Returns the exit status.
    int finish();

  private:
    static constexpr uint64_t maxPending = 256;

    void print(const Outcome &outcome);
    void printSummary(int status);
    void printText(const Outcome &outcome);
    uint64_t count(Verdict verdict) const {
        auto found = counts_.verdicts.find(verdict);
        return found == counts_.verdicts.end() ? 0 : found->second;
    }

    Progress &progress_;
    std::optional<JsonList> list_;
    std::mutex mutex_;
    std::condition_variable printed_;
    std::map<uint64_t, Outcome> pending_;
    uint64_t reserved_ = 0, next_ = 0;
    Counts counts_;
};

nlohmann::json toJson(const Outcome &outcome) {
    nlohmann::json file = reportToJson(outcome.report);
    if (!outcome.problem.empty()) {
        file["problem"] = outcome.problem;
        file["verdict"] = verdictName(Verdict::notJudged);
    }
    setJsonPath(file, outcome.path);
    return file;
}

void Printer::print(const Outcome &outcome) {
    Verdict verdict = outcome.verdict();
    ++counts_.verdicts[verdict];
    counts_.slices += outcome.report.slices.size();
    counts_.anyTrouble = counts_.anyTrouble || outcome.troubled();
    bool something = verdict == Verdict::stale || outcome.troubled();
    if (list_ && (outcome.given || verdict != Verdict::notMacho)) {
        progress_.print([&] { list_->add(toJson(outcome)); });
    } else if (!list_ && (outcome.given || something)) {
        progress_.print([&] { printText(outcome); });
    }
}

std::string_view verdictInWords(Verdict verdict) {
    switch (verdict) {
    case Verdict::right:
        return "right";
    case Verdict::stale:
        return "STALE";
    case Verdict::notJudged:
        return "NOT JUDGED";
    case Verdict::unsigned_:
        return "not signed";
    case Verdict::notMacho:
        return "not a Mach-O file";
    }
    return "";
}

void Printer::printText(const Outcome &outcome) {
    fmt::print("{}: {}\n", escapeForDisplay(outcome.path), verdictInWords(outcome.verdict()));
    if (!outcome.problem.empty()) {
        fmt::print("  {}\n", escapeForDisplay(outcome.problem));
    }
    fmt::print("{}", describeReport(outcome.report));
}

void Printer::printSummary(int status) {
    uint64_t stale = count(Verdict::stale), notJudged = count(Verdict::notJudged);
    uint64_t right = count(Verdict::right), unsigned_ = count(Verdict::unsigned_);
    if (list_) {
        list_->finish({{"files", counts_.files},
                       {"bytes", counts_.bytes},
                       {"slices", counts_.slices},
                       {"right", right},
                       {"stale", stale},
                       {"notJudged", notJudged},
                       {"unsigned", unsigned_},
                       {"exitStatus", status}});
        return;
    }
    fmt::print("{} file{}, {} signed Mach-O with right hashes, {} stale, {} not judged, {} not signed\n",
               counts_.files, counts_.files == 1 ? "" : "s", right, stale, notJudged, unsigned_);
}

int Printer::finish() {
    std::lock_guard lock(mutex_);
    bool stale = count(Verdict::stale) > 0;
    int status = counts_.anyTrouble ? machoTrouble : stale ? machoStale : machoAllRight;
    progress_.print([&] { printSummary(status); });
    return status;
}

/// A file that is being verified, by one thread or several.
class Job {
  public:
    Job(uint64_t number, Outcome outcome, OpenFile file, Printer &printer, Progress &progress)
        : number_(number),
          outcome_(std::move(outcome)),
          file_(std::move(file)),
          printer_(printer),
          progress_(progress) {}

    /// Finds out in which pieces it is verified; none if it is finished already.
    std::vector<ByteRange> plan(unsigned threads);
    void verifyWhole();
    void verifyPiece(const ByteRange &piece);

  private:
    MachoReport look(const std::optional<std::vector<ByteRange>> &within) const {
        return verifyPageHashes(FileBytes(file_.fd.get(), file_.size()), within);
    }
    template<typename Work>
    void attempt(Work work);
    void finish();

    uint64_t number_;
    std::mutex mutex_; ///< of the outcome and of what is left
    Outcome outcome_;
    size_t left_ = 0;
    OpenFile file_;
    Printer &printer_;
    Progress &progress_;
};

template<typename Work>
void Job::attempt(Work work) {
    try {
        work();
    } catch (const std::exception &error) {
        std::lock_guard lock(mutex_);
        outcome_.problem = error.what();
    }
}

std::vector<ByteRange> Job::plan(unsigned threads) {
    std::vector<ByteRange> pieces;
    attempt([&] {
        outcome_.report = look(std::vector<ByteRange>{});
        pieces = planPieces(outcome_.report, file_.size(), threads);
    });
    left_ = pieces.size();
    if (pieces.empty()) {
        finish();
    }
    return pieces;
}

void Job::verifyWhole() {
    attempt([&] { outcome_.report = look(std::nullopt); });
    finish();
    progress_.add(file_.size());
}

void Job::verifyPiece(const ByteRange &piece) {
    attempt([&] {
        MachoReport found = look(std::vector<ByteRange>{piece});
        std::lock_guard lock(mutex_);
        mergeReports(outcome_.report, found);
    });
    progress_.add(piece.size);
    std::unique_lock lock(mutex_);
    if (--left_ == 0) {
        lock.unlock();
        finish();
    }
}

void Job::finish() {
    attempt([&] { file_.requireUnchanged(); });
    if (!outcome_.problem.empty()) {
        outcome_.report = {};
    }
    printer_.put(number_, std::move(outcome_));
}

class Verifier : public TreeVisitor {
  public:
    Verifier(Printer &printer, Progress &progress)
        : threads_(std::max(std::thread::hardware_concurrency(), 1u)),
          printer_(printer),
          progress_(progress),
          pool_(threads_, 4 * threads_) {}

    void verify(const std::string &path);
    void file(int dir, const std::string &name, const std::string &path) override;
    void problem(const std::string &path, const std::string &message) override;

  private:
    static constexpr uint64_t worthPieces = 32 * 1024 * 1024;

    void look(OpenFile file, Outcome outcome);

    const unsigned threads_;
    Printer &printer_;
    Progress &progress_;
    WorkPool pool_;
};

void Verifier::verify(const std::string &path) {
    try {
        struct stat st;
        if (stat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
            walkTree(openDirectory(path).get(), path, *this);
        } else {
            look(openRegular(AT_FDCWD, path, LinkInPath::follow), {path, true, {}, {}});
        }
    } catch (const std::exception &error) {
        problem(path, error.what());
    }
}

void Verifier::file(int dir, const std::string &name, const std::string &path) {
    try {
        look(openRegular(dir, name, LinkInPath::refuse), {path, false, {}, {}});
    } catch (const std::exception &error) {
        problem(path, error.what());
    }
}

void Verifier::problem(const std::string &path, const std::string &message) {
    printer_.put(printer_.reserve(), {path, true, {}, message});
}

void Verifier::look(OpenFile file, Outcome outcome) {
    printer_.countFile(file.size());
    if (!file.canBeMacho()) {
        progress_.add(file.size());
        if (outcome.given) {
            printer_.put(printer_.reserve(), std::move(outcome));
        }
        return;
    }
    bool large = file.size() >= worthPieces;
    auto job =
        std::make_shared<Job>(printer_.reserve(), std::move(outcome), std::move(file), printer_, progress_);
    if (!large) {
        pool_.submit([job] { job->verifyWhole(); });
        return;
    }
    std::vector<ByteRange> pieces = job->plan(threads_);
    if (pieces.size() == 1) {
        pool_.submit([job] { job->verifyWhole(); });
        return;
    }
    for (const ByteRange &piece : pieces) {
        pool_.submit([job, piece] { job->verifyPiece(piece); });
    }
}

} // namespace

int machoVerify(const MachoOptions &options) {
    Progress progress(options.paths);
    Printer printer(options.json, progress);
    {
        Verifier verifier(printer, progress);
        for (const std::string &path : options.paths) {
            verifier.verify(path);
        }
    }
    return printer.finish();
}

} // namespace firn
