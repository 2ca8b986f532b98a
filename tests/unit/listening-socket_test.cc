#include "firn/listening-socket.hh"

#include <gtest/gtest.h>

#include <sys/socket.h>
#include <sys/stat.h>

#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {
namespace {

class ListeningSocket : public testing::Test {
  protected:
    void SetUp() override {
        std::string name = (std::filesystem::temp_directory_path() / "firn-socket-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        dir = name;
    }
    void TearDown() override { std::filesystem::remove_all(dir); }
    std::filesystem::path dir;
};

TEST_F(ListeningSocket, IsOpenToEverybodyInADirectoryMadeForIt) {
    std::filesystem::path path = dir / "new" / "folder" / "socket";
    UniqueFd listening = openListeningSocket(path);
    struct stat st {};
    ASSERT_EQ(lstat(path.c_str(), &st), 0);
    EXPECT_TRUE(S_ISSOCK(st.st_mode));
    EXPECT_EQ(st.st_mode & 0777, 0666u);
    EXPECT_GE(connectToSocket(path).get(), 0);
}

TEST_F(ListeningSocket, ReplacesWhatADeadDaemonLeft) {
    openListeningSocket(dir / "socket").reset();
    UniqueFd listening = openListeningSocket(dir / "socket");
    EXPECT_GE(connectToSocket(dir / "socket").get(), 0);
}

TEST_F(ListeningSocket, DoesNotReplaceALiveDaemons) {
    UniqueFd first = openListeningSocket(dir / "socket");
    EXPECT_THROW(openListeningSocket(dir / "socket"), Error);
    EXPECT_GE(connectToSocket(dir / "socket").get(), 0);
}

TEST_F(ListeningSocket, DoesNotReplaceAnythingElse) {
    writeFile(dir / "socket", "precious");
    EXPECT_THROW(openListeningSocket(dir / "socket"), Error);
    EXPECT_EQ(readFile(dir / "socket"), "precious");
}

TEST_F(ListeningSocket, MayHaveALongPath) {
    std::filesystem::path path = dir / std::string(200, 'x') / std::string(200, 'y') / "socket";
    std::filesystem::path before = std::filesystem::current_path();
    UniqueFd listening = openListeningSocket(path);
    EXPECT_GE(connectToSocket(path).get(), 0);
    EXPECT_EQ(std::filesystem::current_path(), before);
}

TEST_F(ListeningSocket, CannotHaveALongName) {
    EXPECT_THROW(openListeningSocket(dir / std::string(200, 'x')), Error);
}

} // namespace
} // namespace firn
