#include "libstore/build/macho-jail.hh"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <thread>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libstore/darwin/macho-normal-form.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "unit/expect-error.hh"
#include "unit/macho-builder.hh"
#include "unit/macho-normal-form-cases.hh"
#include "unit/temporary-directory.hh"

namespace firn {
namespace {

using namespace std::chrono_literals;

std::string chosen(const char *variable, const char *otherwise) {
    const char *value = getenv(variable);
    return value && *value ? value : otherwise;
}

class MachoJailTest : public testing::Test {
  protected:
    MachoJailTest() { signal(SIGPIPE, SIG_IGN); }

    static std::string realJail() { return chosen("FIRN_MACHO_JAIL", FIRN_MACHO_JAIL_PATH); }

    /// A program in the jail's place: a shell script with the socket as standard input.
    std::string fake(const std::string &script) {
        std::string path = tmp_ / "fake-jail";
        std::ofstream(path) << "#!/bin/sh\n" << script << "\n";
        chmod(path.c_str(), 0755);
        return path;
    }

    /// One that gives this answer to anything.
    std::string answering(const std::string &bytes) {
        std::ofstream(tmp_ / "answer", std::ios::binary) << bytes;
        return fake("cat " + (tmp_ / "answer").string() + " >&0; exec sleep 60");
    }

    UniqueFd file(const std::string &bytes) {
        std::ofstream(tmp_ / "file", std::ios::binary) << bytes;
        return openFileAt(tmp_.fd(), "file");
    }

    /// Asks what a rewrite of 32 bytes at `offset` needs.
    static jail::Request rewrite(const std::string &bytes, uint64_t offset) {
        jail::Request request;
        request.fileSize = bytes.size();
        request.patches = {{Patch::Place::contents, offset, std::string(32, 'n')}};
        return request;
    }

    /// Questions about the same file, each about another place.
    std::vector<MachoJail::Question> rewrites(const std::string &bytes, size_t count) {
        std::vector<MachoJail::Question> questions;
        for (size_t i = 0; i < count; ++i) {
            questions.push_back({rewrite(bytes, 4096 + 100 * i), file(bytes)});
        }
        return questions;
    }

    std::string failure(const std::string &program, JailPatience patience = {}) {
        MachoJail jail(program, patience);
        UniqueFd small = file(std::string(100, '.'));
        return expectError(ErrorKind::failure,
                           [&] { jail.ask(rewrite(std::string(100, '.'), 5), small.get()); });
    }

    TemporaryDirectory tmp_;
};

std::string patched(std::string bytes, const std::vector<BytePatch> &patches) {
    for (const BytePatch &patch : patches) {
        bytes.replace(patch.offset, patch.bytes.size(), patch.bytes);
    }
    return bytes;
}

TEST_F(MachoJailTest, TheRealOneRepairsAndVerifies) {
    test::Image image;
    MachoJail jail(realJail());
    jail::Request request = rewrite(image.bytes, 4096 - 10);
    jail::Answer answer = jail.ask(request, file(image.bytes).get());
    EXPECT_EQ(answer.fixup.patches.size(), 2u);
    std::string changed = image.bytes;
    changed.replace(4096 - 10, 32, std::string(32, 'n'));
    EXPECT_EQ(patched(changed, answer.fixup.patches), image.sign(changed));

    jail::Request verify;
    verify.kind = jail::Kind::verify;
    verify.fileSize = image.bytes.size();
    verify.ranges = {{4096 - 10, 32}};
    std::vector<jail::StaleSlot> stale = jail.ask(verify, file(changed).get()).stale;
    ASSERT_EQ(stale.size(), 2u);
    EXPECT_EQ(stale[0].range, (ByteRange{image.directories[0].slot(0), 32}));
    EXPECT_EQ(stale[1].range, (ByteRange{image.directories[0].slot(1), 32}));
    EXPECT_TRUE(jail.ask(verify, file(image.sign(changed)).get()).stale.empty());
}

TEST_F(MachoJailTest, TheRealOneAppliesRulesWhereNoListIsGiven) {
    test::Image image;
    std::string from(32, 'a'), to(32, 'b');
    std::string before = image.bytes;
    before.replace(4096 - 10, 32, from).replace(8000, 32, from);
    before = image.sign(before);
    std::string after = before;
    after.replace(4096 - 10, 32, to).replace(8000, 32, to);
    jail::Request request;
    request.fileSize = before.size();
    request.rules = {{from, to}};
    MachoJail jail(realJail());
    jail::Answer answer = jail.ask(request, file(before).get());
    EXPECT_EQ(patched(after, answer.fixup.patches), image.sign(after));
}

TEST_F(MachoJailTest, TheRealOneKnowsEveryKindOfHash) {
    for (uint8_t type : {1, 2, 3, 4}) {
        test::ImageSpec spec;
        spec.directories[0].hashType = type;
        test::Image image(spec);
        MachoJail jail(realJail());
        jail::Answer answer = jail.ask(rewrite(image.bytes, 5000), file(image.bytes).get());
        std::string changed = image.bytes;
        changed.replace(5000, 32, std::string(32, 'n'));
        EXPECT_EQ(patched(changed, answer.fixup.patches), image.sign(changed)) << int(type);
    }
}

TEST_F(MachoJailTest, TheRealOneComparesTwoFiles) {
    test::Image image;
    std::string other = image.bytes;
    other[image.uuidCommand + 8] ^= 1;
    std::string signedAnew = image.sign(other);
    jail::Request request;
    request.kind = jail::Kind::compare;
    request.fileSize = request.secondSize = other.size();
    MachoJail jail(realJail());
    std::ofstream(tmp_ / "second", std::ios::binary) << signedAnew;
    // More often than descriptors fit, if it kept any.
    for (int i = 0; i < 20; ++i) {
        UniqueFd first = file(image.bytes);
        UniqueFd second = openFileAt(tmp_.fd(), "second");
        MachoComparison found = jail.ask(request, first.get(), second.get()).comparison;
        EXPECT_TRUE(found.isMacho);
        EXPECT_EQ(found.difference, MachoDifference::uuid);
        EXPECT_FALSE(found.firstStale || found.secondStale);
    }
}

TEST_F(MachoJailTest, AComparisonWithNothingIsAnError) {
    jail::Request request;
    request.kind = jail::Kind::compare;
    request.fileSize = request.secondSize = 4;
    MachoJail jail(realJail());
    UniqueFd first = file("1234");
    std::string message = expectError(ErrorKind::failure, [&] { jail.ask(request, first.get()); });
    EXPECT_NE(message.find("nothing to compare it with"), std::string::npos) << message;
    UniqueFd second = openFileAt(tmp_.fd(), "file");
    EXPECT_FALSE(jail.ask(request, first.get(), second.get()).comparison.isMacho);
}

jail::Request formRequest(jail::Kind kind, const test::NormalFormCase &form, const std::string &selfPart) {
    jail::Request request;
    request.kind = kind;
    request.fileSize = form.bytes.size();
    request.selfPart = selfPart;
    return request;
}

std::vector<BytePatch> withoutReferences(std::vector<BytePatch> patches,
                                         const std::vector<uint64_t> &places) {
    std::erase_if(patches, [&](const BytePatch &patch) {
        return std::find(places.begin(), places.end(), patch.offset) != places.end();
    });
    return patches;
}

TEST_F(MachoJailTest, TheRealOneMakesBothFormsOfWhatIsInside) {
    MachoJail jail(realJail());
    for (const auto &[name, form] : test::insideCases()) {
        test::MemoryBytes bytes(form.bytes);
        UniqueFd open = file(form.bytes);
        jail::Request normal = formRequest(jail::Kind::normalForm, form, test::builtHashPart);
        jail::Form looked = jail.ask(normal, open.get()).form;
        normal.selfReferences = form.selfReferences;
        jail::Form told = jail.ask(normal, open.get()).form;
        auto expected =
            withoutReferences(machoNormalForm(bytes, form.selfReferences).patches, form.selfReferences);
        EXPECT_TRUE(looked.inside && told.inside) << name << looked.reason;
        EXPECT_EQ(told.selfReferences, form.selfReferences.size()) << name;
        EXPECT_EQ(looked.patches, expected) << name;
        EXPECT_EQ(told.patches, expected) << name;

        jail::Request final = formRequest(jail::Kind::finalForm, form, test::finalHashPart);
        final.selfReferences = form.selfReferences;
        EXPECT_EQ(jail.ask(final, open.get()).form.patches,
                  withoutReferences(machoFinalForm(bytes, form.selfReferences, test::finalHashPart),
                                    form.selfReferences))
            << name;
    }
}

TEST_F(MachoJailTest, TheRealOneSaysWhyAFileHasNoNormalForm) {
    MachoJail jail(realJail());
    const auto cases = test::outsideCases();
    for (const char *name : {"cms", "scattered", "text"}) {
        const test::NormalFormCase &form = cases.at(name);
        jail::Request request = formRequest(jail::Kind::normalForm, form, test::builtHashPart);
        jail::Form answer = jail.ask(request, file(form.bytes).get()).form;
        EXPECT_FALSE(answer.inside) << name;
        EXPECT_NE(answer.reason.find(form.outside), std::string::npos) << name << ": " << answer.reason;
        EXPECT_TRUE(answer.patches.empty()) << name;
    }
}

TEST_F(MachoJailTest, TheRealOneFindsSelfReferencesBehindRules) {
    test::NormalFormCase form = test::insideCases().at("plain");
    MachoJail jail(realJail());
    jail::Request request = formRequest(jail::Kind::finalForm, form, test::finalHashPart);
    request.rules = {{test::builtHashPart, test::finalHashPart}};
    jail::Form answer = jail.ask(request, file(form.bytes).get()).form;
    EXPECT_EQ(answer.selfReferences, form.selfReferences.size());
    EXPECT_EQ(answer.patches, withoutReferences(machoFinalForm(test::MemoryBytes(form.bytes),
                                                               form.selfReferences, test::finalHashPart),
                                                form.selfReferences));
}

TEST_F(MachoJailTest, AFormThatChangesASelfReferenceIsNoAnswer) {
    jail::Request request;
    request.kind = jail::Kind::normalForm;
    request.fileSize = 100;
    request.selfPart = test::builtHashPart;
    request.selfReferences = {4, 60};
    auto ask = [&](uint64_t offset) {
        jail::Answer answer;
        answer.form = {true, "", 2, {{offset, std::string(16, 'x')}}};
        MachoJail jail(answering(jail::encodeAnswer(answer)));
        UniqueFd small = file(std::string(100, '.'));
        return jail.ask(request, small.get()).form.patches.size();
    };
    for (uint64_t place : {0, 35, 45, 60, 76}) {
        std::string message = expectError(ErrorKind::failure, [&] { ask(place); });
        EXPECT_NE(message.find("is no answer"), std::string::npos) << place << message;
    }
    EXPECT_EQ(ask(36), 1u);
    EXPECT_EQ(ask(44), 1u);
}

TEST_F(MachoJailTest, AnAnswerToAnotherQuestionIsNone) {
    jail::Answer compared;
    compared.comparison = {true, MachoDifference::uuid, false, false};
    EXPECT_NE(failure(answering(jail::encodeAnswer(compared))).find("is no answer"), std::string::npos);
    jail::Answer formed;
    formed.form = {false, "why", 1, {}};
    EXPECT_NE(failure(answering(jail::encodeAnswer(formed))).find("is no answer"), std::string::npos);
}

TEST_F(MachoJailTest, TheRealOneHasNothingToSayOfOtherFiles) {
    MachoJail jail(realJail());
    for (const std::string &bytes :
         {std::string(100, '.'), std::string(), std::string("\xca\xfe\xba\xbe\0\0\0\x34", 8)}) {
        jail::Request request;
        request.fileSize = bytes.size();
        jail::Answer answer = jail.ask(request, file(bytes).get());
        EXPECT_TRUE(answer.fixup.patches.empty());
    }
}

TEST_F(MachoJailTest, AFileThatIsShorterThanSaidIsAnError) {
    test::Image image;
    MachoJail jail(realJail());
    jail::Request request = rewrite(image.bytes, 100);
    UniqueFd cut = file(image.bytes.substr(0, 5000));
    std::string message = expectError(ErrorKind::failure, [&] { jail.ask(request, cut.get()); });
    EXPECT_NE(message.find("the file became shorter than"), std::string::npos) << message;
    // It lives on.
    EXPECT_EQ(jail.ask(request, file(image.bytes).get()).fixup.patches.size(), 1u);
}

TEST_F(MachoJailTest, OneThatDiedIsStartedAnew) {
    std::string flag = tmp_ / "flag";
    MachoJail jail(
        fake("if ! test -e " + flag + "; then touch " + flag + "; kill -9 $$; fi; exec " + realJail()));
    test::Image image;
    EXPECT_EQ(jail.ask(rewrite(image.bytes, 5000), file(image.bytes).get()).fixup.patches.size(), 1u);
}

TEST_F(MachoJailTest, OneThatDiesTwiceIsAnError) {
    std::string message = failure(fake("echo x >>" + (tmp_ / "starts").string() + "; kill -9 $$"));
    EXPECT_EQ(message, "the process that looks at it was killed by signal 9 (Killed), twice");
    EXPECT_EQ(std::filesystem::file_size(tmp_ / "starts"), 4u);
    EXPECT_NE(failure(fake("exit 3")).find("ended with exit code 3"), std::string::npos);
    EXPECT_NE(failure(fake("exit 14")).find("it could not load its system call filter"), std::string::npos);
}

TEST_F(MachoJailTest, SeveralQuestionsAreAnsweredInTheirOrder) {
    test::Image image;
    std::vector<MachoJail::Question> questions = rewrites(image.bytes, 50);
    MachoJail jail(realJail());
    std::vector<jail::Answer> answers;
    jail.askAll(questions, answers);
    ASSERT_EQ(answers.size(), questions.size());
    for (size_t i = 0; i < answers.size(); ++i) {
        std::string changed = image.bytes;
        changed.replace(questions[i].request.patches[0].offset, 32, std::string(32, 'n'));
        EXPECT_EQ(patched(changed, answers[i].fixup.patches), image.sign(changed)) << i;
    }
    jail.askAll({}, answers);
    EXPECT_EQ(answers.size(), questions.size());
}

TEST_F(MachoJailTest, LargeQuestionsWithLargeAnswersDoNotWaitForEachOther) {
    test::ImageSpec spec;
    spec.codeSize = 3000 * 4096; // so that neither fits a socket
    test::Image image(spec);
    jail::Request request;
    request.fileSize = image.bytes.size();
    std::string changed = image.bytes;
    for (uint64_t at = 2 * 4096; at + 4096 <= spec.codeSize; at += 1024) {
        request.patches.push_back({Patch::Place::contents, at, std::string(32, 'n')});
        changed.replace(at, 32, std::string(32, 'n'));
    }
    std::vector<MachoJail::Question> questions;
    for (int i = 0; i < 4; ++i) {
        questions.push_back({request, file(image.bytes)});
    }
    MachoJail jail(realJail(), {20s, 1 << 30});
    std::vector<jail::Answer> answers;
    jail.askAll(questions, answers);
    ASSERT_EQ(answers.size(), 4u);
    EXPECT_TRUE(patched(changed, answers[3].fixup.patches) == image.sign(changed));
}

TEST_F(MachoJailTest, OfSeveralQuestionsThoseWithoutAnAnswerAreAskedAnew) {
    test::Image image;
    std::vector<MachoJail::Question> questions = rewrites(image.bytes, 5);
    std::string starts = tmp_ / "starts";
    std::ofstream(tmp_ / "answer", std::ios::binary)
        << jail::encodeAnswer(MachoJail(realJail()).ask(questions[0].request, questions[0].file.get()));
    MachoJail jail(fake("echo x >>" + starts + "; if [ $(wc -l <" + starts + ") = 1 ]; then cat " +
                        (tmp_ / "answer").string() + " >&0; sleep 0.3; kill -9 $$; fi; exec " + realJail()));
    std::vector<jail::Answer> answers;
    jail.askAll(questions, answers);
    ASSERT_EQ(answers.size(), 5u);
    for (size_t i = 0; i < answers.size(); ++i) {
        EXPECT_EQ(answers[i].fixup.patches,
                  MachoJail(realJail()).ask(questions[i].request, questions[i].file.get()).fixup.patches);
    }
    EXPECT_EQ(readFile(starts), "x\nx\n");
}

TEST_F(MachoJailTest, OfSeveralQuestionsTheOneThatKillsTwiceIsTheOneWithoutAnAnswer) {
    test::Image image;
    std::vector<MachoJail::Question> questions = rewrites(image.bytes, 3);
    std::string starts = tmp_ / "starts";
    std::ofstream(tmp_ / "answer", std::ios::binary)
        << jail::encodeAnswer(MachoJail(realJail()).ask(questions[0].request, questions[0].file.get()));
    MachoJail jail(fake("echo x >>" + starts + "; if [ $(wc -l <" + starts + ") = 1 ]; then cat " +
                        (tmp_ / "answer").string() + " >&0; sleep 0.3; fi; kill -9 $$"));
    std::vector<jail::Answer> answers;
    std::string message = expectError(ErrorKind::failure, [&] { jail.askAll(questions, answers); });
    EXPECT_EQ(message, "the process that looks at it was killed by signal 9 (Killed), twice");
    EXPECT_EQ(answers.size(), 1u);
    EXPECT_EQ(readFile(starts), "x\nx\n");
}

TEST_F(MachoJailTest, TheOneThatWasGotReadyIsAsked) {
    std::string starts = tmp_ / "starts";
    MachoJail jail(fake("echo x >>" + starts + "; exec " + realJail()));
    jail.prepare();
    jail.prepare();
    test::Image image;
    EXPECT_EQ(jail.ask(rewrite(image.bytes, 5000), file(image.bytes).get()).fixup.patches.size(), 1u);
    EXPECT_EQ(readFile(starts), "x\n");
}

TEST_F(MachoJailTest, OneThatCannotBeGotReadyIsToldWhenItIsAsked) {
    MachoJail jail("/nonexistent/firn-macho-jail");
    jail.prepare();
    UniqueFd small = file("1234");
    std::string message = expectError(ErrorKind::system, [&] { jail.ask({}, small.get()); });
    EXPECT_NE(message.find("/nonexistent/firn-macho-jail"), std::string::npos) << message;
}

TEST_F(MachoJailTest, OneThatHangsIsAnErrorAfterAWhile) {
    auto started = std::chrono::steady_clock::now();
    std::string message = failure(fake("exec sleep 60"), {200ms, 1 << 20});
    EXPECT_NE(message.find("no answer in time"), std::string::npos) << message;
    EXPECT_LT(std::chrono::steady_clock::now() - started, 10s);
}

TEST_F(MachoJailTest, OneThatDoesNotEvenReadIsAnErrorToo) {
    std::string bytes(8 << 20, '.');
    jail::Request request;
    request.fileSize = bytes.size();
    for (uint64_t at = 0; at < bytes.size(); at += 64) {
        request.patches.push_back({Patch::Place::contents, at, std::string(32, 'n')});
    }
    MachoJail jail(fake("exec sleep 60"), {300ms, 1 << 30});
    UniqueFd big = file(bytes);
    expectError(ErrorKind::failure, [&] { jail.ask(request, big.get()); });
}

TEST_F(MachoJailTest, LargerFilesAreGivenMoreTime) {
    MachoJail jail(fake("sleep 1; exec " + realJail()), {200ms, 2000});
    test::Image image; // of some 12 kB
    EXPECT_EQ(jail.ask(rewrite(image.bytes, 5000), file(image.bytes).get()).fixup.patches.size(), 1u);
}

TEST_F(MachoJailTest, AnEndOfTheTimeForTheBuildEndsTheQuestion) {
    MachoJail jail(fake("exec sleep 60"));
    UniqueFd small = file("1234");
    WorkDeadline deadline(std::chrono::steady_clock::now() + 200ms);
    jail::Request request;
    request.fileSize = 4;
    EXPECT_THROW(jail.ask(request, small.get()), DeadlinePassed);
}

TEST_F(MachoJailTest, RubbishIsNoAnswer) {
    auto header = [](jail::Outcome outcome, uint64_t size) {
        return jail::encodeHeader({static_cast<uint32_t>(outcome), size});
    };
    using jail::Outcome;
    jail::Answer outside;
    outside.fixup.patches = {{90, std::string(20, 'x')}};
    for (const std::string &bytes : {
             std::string(1000, 'r'),
             header(static_cast<Outcome>(7), 0),
             header(Outcome::done, 0),
             header(Outcome::done, UINT64_MAX),
             header(Outcome::done, 12) + std::string(12, '\xff'),
             header(Outcome::failed, jail::maxReason + 1),
             jail::encodeAnswer(outside),
         }) {
        std::string message = failure(answering(bytes));
        EXPECT_NE(message.find("is no answer"), std::string::npos) << message;
    }
}

TEST_F(MachoJailTest, AReasonForAFailureIsShownSafely) {
    std::string reason = "because\x1b[31m";
    std::string bytes =
        jail::encodeHeader({static_cast<uint32_t>(jail::Outcome::failed), reason.size()}) + reason;
    EXPECT_EQ(failure(answering(bytes)), "because\\x1b[31m");
}

TEST_F(MachoJailTest, AProgramThatIsNotThereIsNamed) {
    MachoJail jail("/nonexistent/firn-macho-jail");
    UniqueFd small = file("1234");
    std::string message = expectError(ErrorKind::system, [&] { jail.ask({}, small.get()); });
    EXPECT_NE(message.find("/nonexistent/firn-macho-jail"), std::string::npos) << message;
}

TEST_F(MachoJailTest, ProcessesAreGoneWithTheirOwner) {
    std::string pidFile = tmp_ / "pid";
    {
        MachoJail jail(fake("echo $$ >" + pidFile + "; exec sleep 60"), {500ms, 1 << 20});
        UniqueFd small = file("1234");
        expectError(ErrorKind::failure, [&] { jail.ask({}, small.get()); });
    }
    EXPECT_NE(kill(std::stoi(readFile(pidFile)), 0), 0);
}

#ifdef __linux__

class MachoJailConfinement : public testing::Test {
  protected:
    static pid_t start(const std::string &probe, int input) {
        std::string program = chosen("FIRN_MACHO_JAIL_PROBE", FIRN_MACHO_JAIL_PROBE_PATH), name = probe;
        char *args[] = {program.data(), name.data(), nullptr};
        char *env[] = {nullptr};
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, input, 0);
        pid_t pid = -1;
        EXPECT_EQ(posix_spawn(&pid, program.c_str(), &actions, nullptr, args, env), 0);
        posix_spawn_file_actions_destroy(&actions);
        return pid;
    }

    static int end(pid_t pid) {
        int status = -1;
        EXPECT_EQ(waitpid(pid, &status, 0), pid);
        return status;
    }

    static int run(const std::string &probe) {
        UniqueFd input(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
        return end(start(probe, input.get()));
    }
};

TEST_F(MachoJailConfinement, ComputingWorks) {
    for (const char *probe : {"read", "memory", "too-much-memory"}) {
        int status = run(probe);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << probe << " " << status;
    }
}

TEST_F(MachoJailConfinement, EverythingElseKills) {
    for (const char *probe : {
             "open",        "openat",        "openat2",     "stat",      "readlink", "unlink", "socket",
             "socket-unix", "connect",       "sendmsg",     "execve",    "clone",    "kill",   "ptrace",
             "code-mapped", "code-unlocked", "file-mapped", "io_uring",  "setuid",   "limits", "dup",
#ifdef __x86_64__
             "open",        "fork",          "x32-open",    "i386-open",
#endif
         }) {
        int status = run(probe);
        EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) << probe << " " << status;
    }
}

TEST_F(MachoJailConfinement, NothingIsLeftOfRootAndNoDescriptor) {
    Pipe pipe = makePipe();
    pid_t pid = start("nothing", pipe.readEnd.get());
    std::string folder = "/proc/" + std::to_string(pid), status;
    // The filter comes last.
    for (int i = 0; i < 500 && status.find("Seccomp:\t2") == std::string::npos; ++i) {
        std::this_thread::sleep_for(10ms);
        status = readFile(folder + "/status");
    }
    EXPECT_NE(status.find("Seccomp:\t2"), std::string::npos) << status;
    EXPECT_NE(status.find("NoNewPrivs:\t1"), std::string::npos) << status;
    EXPECT_NE(status.find("CapPrm:\t0000000000000000"), std::string::npos) << status;
    EXPECT_NE(status.find("CapEff:\t0000000000000000"), std::string::npos) << status;
    if (geteuid() == 0) {
        EXPECT_NE(status.find("Uid:\t65534\t65534\t65534\t65534"), std::string::npos) << status;
        EXPECT_NE(status.find("Gid:\t65534\t65534\t65534\t65534"), std::string::npos) << status;
        EXPECT_NE(status.find("Groups:\t \n"), std::string::npos) << status;
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder + "/fd"), {}), 1);
    }
    pipe.writeEnd.reset();
    int ended = end(pid);
    EXPECT_TRUE(WIFEXITED(ended) && WEXITSTATUS(ended) == 0) << ended;
}

#endif

} // namespace
} // namespace firn
