#include "libstore/build/kept-build.hh"

#include <cerrno>

#include <sys/stat.h>
#include <unistd.h>

#include "libstore/build/builtin-builder.hh"
#include "libstore/build/output-placement.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"

namespace firn {

namespace {

/// What throws here leaves the output to those who remove what is left over.
void keepOutput(const BuildToKeep &build, const std::string &name, const StorePath &scratch,
                StoreLeftovers &leftovers) {
    const std::string &entry = scratch.baseName();
    int storeFd = build.store.storeFd();
    int dir = build.scratchStore.value_or(storeFd);
    bool wanted = !build.scratchStore || (build.plan.mode == BuildMode::normal &&
                                          !build.plan.outputs.at(name).valid && !existsAt(storeFd, entry));
    struct stat st;
    if (!wanted || build.store.isValidPath(scratch) || !statAt(dir, entry, st)) {
        return;
    }
    // Registration may have made it canonical before it failed.
    uid_t owner = st.st_uid == geteuid() ? geteuid() : build.builder;
    canonicaliseTree(dir, entry, owner, build.store.settings().ignoredAcls);
    if (build.scratchStore) {
        moveOutput(dir, entry, storeFd, entry);
    }
    leftovers.forget(scratch);
}

/// Whoever gets the directory may not be who may know the passwords.
void removePasswords(const BuildToKeep &build, const BuildDirectory &directory) {
    if (build.plan.derivation.isBuiltin() && unlinkat(directory.contentsFd(), builtinNetrcFile, 0) != 0 &&
        errno != ENOENT) {
        throwErrno("removing '{}' from build directory '{}'", builtinNetrcFile, directory.path().string());
    }
}

/// As a clause for the note that says where it is kept.
std::string describeNoexec(const ExecChoice *execution) {
    bool noexec =
        execution && execution->mechanism != ExecMechanism::stateDirectory && execution->mount.noexec;
    return noexec ? fmt::format("; programs cannot be executed there, since '{}' is mounted noexec",
                                execution->mount.mountPoint)
                  : "";
}

} // namespace

void keepFailedOutputs(const BuildToKeep &build, StoreLeftovers &leftovers) {
    for (const auto &[name, scratch] : build.scratchPaths) {
        try {
            keepOutput(build, name, scratch, leftovers);
        } catch (const Error &error) {
            build.context.logger.warn(fmt::format("cannot keep failed output '{}', it is removed: {}",
                                                  build.store.dir().print(scratch), error.message()));
        }
    }
}

void keepBuildDirectory(const BuildToKeep &build, BuildDirectory &directory) {
    const BuildContext &context = build.context;
    if (build.execution && build.execution->mechanism == ExecMechanism::tmpfs) {
        context.logger.log(Verbosity::error, "note: the build directory was in memory ('noexec-build-dir = "
                                             "tmpfs') and cannot be kept");
        return;
    }
    removePasswords(build, directory);
    bool known = context.clientUid != static_cast<uid_t>(-1);
    uid_t uid = known ? context.clientUid : geteuid();
    gid_t gid = known ? context.clientGid : getegid();
    std::filesystem::path kept = directory.keep(build.plan.derivation.name, build.builder, uid, gid);
    context.logger.log(Verbosity::error, fmt::format("note: keeping build directory '{}'{}", kept.string(),
                                                     describeNoexec(build.execution)));
}

} // namespace firn
