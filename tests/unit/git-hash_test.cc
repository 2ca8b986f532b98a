#include "libutil/git-hash.hh"

#include <cstdio>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "libutil/error.hh"
#include "libutil/files.hh"
#include "temporary-directory.hh"

using namespace firn;

namespace {

/// What a command prints, without the end of the line.
std::string outputOf(const std::string &command) {
    FILE *pipe = popen(command.c_str(), "r");
    std::string text;
    for (int c; (c = fgetc(pipe)) != EOF;) {
        text += static_cast<char>(c);
    }
    EXPECT_EQ(pclose(pipe), 0) << command;
    while (text.ends_with('\n')) {
        text.pop_back();
    }
    return text;
}

std::string gitIn(const TemporaryDirectory &dir, const std::string &arguments) {
    std::string quoted = "'" + dir.path().string() + "'";
    return outputOf("cd " + quoted + " && env -i PATH=\"$PATH\" HOME=" + quoted +
                    " GIT_CONFIG_NOSYSTEM=1 git " + arguments);
}

std::string hashOf(const TemporaryDirectory &dir, const std::string &name,
                   HashAlgorithm algorithm = HashAlgorithm::sha1) {
    return hashGitObject(dir.fd(), name, algorithm).digits(Encoding::base16);
}

void write(const std::filesystem::path &path, std::string_view content, mode_t mode = 0644) {
    std::ofstream(path, std::ios::binary) << content;
    ASSERT_EQ(chmod(path.c_str(), mode), 0);
}

/// Names around the slash, which decides the order of directories, and everything that git knows of.
void makeTree(const std::filesystem::path &root) {
    for (const char *name : {"foo", "bar", "bar-sub", "foo.d/deep/deeper", "\xc3\xa9t\xc3\xa9"}) {
        std::filesystem::create_directories(root / name);
        write(root / name / "file", std::string("in ") + name);
    }
    for (const char *name :
         {"foo-", "foo.", "foo0", "foo!", "bar.txt", "FOO", "\xff", "with blank", "new\nline"}) {
        write(root / name, name);
    }
    write(root / "empty", "");
    write(root / "run", "#!/bin/sh\n", 0755);
    write(root / "foo" / "run", "#!/bin/sh\n", 0555);
    write(root / "zeros", std::string(1 << 20, '\0') + "end");
    std::filesystem::create_symlink("foo/run", root / "link");
    std::filesystem::create_symlink("/nowhere", root / "foo" / "dangling");
    std::filesystem::create_directory_symlink("bar", root / "link-to-directory");
}

} // namespace

TEST(GitHash, ofATreeIsGits) {
    for (HashAlgorithm algorithm : {HashAlgorithm::sha1, HashAlgorithm::sha256}) {
        TemporaryDirectory dir;
        makeTree(dir / "tree");
        std::string format(hashAlgorithmName(algorithm));
        gitIn(dir, "init -q --object-format=" + format + " repository");
        gitIn(dir, "--git-dir=repository/.git --work-tree=tree add -A");
        EXPECT_EQ(hashOf(dir, "tree", algorithm), gitIn(dir, "--git-dir=repository/.git write-tree"));
    }
}

TEST(GitHash, ofAFileIsThatOfItsBlob) {
    TemporaryDirectory dir;
    write(dir / "a", "hello\n");
    write(dir / "run", "hello\n", 0755);
    std::string expected = gitIn(dir, "hash-object --no-filters a");
    EXPECT_EQ(hashOf(dir, "a"), expected);
    EXPECT_EQ(hashOf(dir, "run"), expected);
    std::filesystem::create_symlink("target", dir / "link");
    write(dir / "target text", "target");
    EXPECT_EQ(hashOf(dir, "link"), gitIn(dir, "hash-object --no-filters 'target text'"));
}

TEST(GitHash, ofEmptyDirectoriesIsThatOfEmptyTrees) {
    TemporaryDirectory dir;
    std::filesystem::create_directories(dir / "outer/inner");
    std::string empty = gitIn(dir, "hash-object -t tree /dev/null");
    EXPECT_EQ(hashGitObject(openDirectory(dir / "outer").get(), "inner", HashAlgorithm::sha1)
                  .digits(Encoding::base16),
              empty);
    gitIn(dir, "init -q repository");
    std::string line = "printf '040000 tree " + empty + "\\tinner\\n' | git --git-dir='" +
                       dir.path().string() + "/repository/.git' mktree --missing";
    EXPECT_EQ(hashOf(dir, "outer"), outputOf(line));
}

TEST(GitHash, depthIsNoMatter) {
    TemporaryDirectory dir;
    std::string commands =
        "cd '" + dir.path().string() +
        "' && mkdir d && cd d && for i in $(seq 2000); do mkdir d && cd -P d || exit 1; done; echo x > x";
    ASSERT_EQ(std::system(commands.c_str()), 0);
    Hash hash = hashGitObject(dir.fd(), "d", HashAlgorithm::sha1);
    // By hand, from the innermost tree.
    std::string object =
        std::string("100644 x") + '\0' +
        std::string(hashString(HashAlgorithm::sha1, std::string("blob 2") + '\0' + "x\n").digest());
    std::string digest;
    for (int i = 0; i <= 2000; ++i) {
        Hash tree = hashString(HashAlgorithm::sha1, "tree " + std::to_string(object.size()) + '\0' + object);
        digest = tree.digits(Encoding::base16);
        object = std::string("40000 d") + '\0' + std::string(tree.digest());
    }
    EXPECT_EQ(hash.digits(Encoding::base16), digest);
}

TEST(GitHash, refusesWhatGitCannotHold) {
    TemporaryDirectory dir;
    std::filesystem::create_directory(dir / "tree");
    ASSERT_EQ(mkfifo((dir / "tree/fifo").c_str(), 0600), 0);
    EXPECT_THROW(hashOf(dir, "tree"), Error);
    EXPECT_THROW(hashOf(dir, "missing"), Error);
    write(dir / "a", "a");
    EXPECT_THROW(hashOf(dir, "a", HashAlgorithm::sha512), Error);
    EXPECT_THROW(hashOf(dir, "a", HashAlgorithm::md5), Error);
}
