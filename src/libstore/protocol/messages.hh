#pragma once

#include <string>
#include <vector>

#include "libstore/build/build-result.hh"
#include "libstore/model/derivation.hh"
#include "libstore/model/derived-path.hh"
#include "libstore/model/path-info.hh"
#include "libstore/model/realisation.hh"
#include "libstore/protocol/wire.hh"

// The composite values of Nix's worker protocol. Some changed their form over the years: where a function
// takes `minor`, that is the minor number of the protocol version both sides agreed on.
//
//   1.26  errors are structured        1.28  build results name their outputs
//   1.29  build results have times     1.30  a derived path says what it means ("x.drv" is just that file)
//   1.31  realisations are JSON        1.37  build results have processor times

namespace firn {

/// A path's info without the path itself: deriver, NAR hash in base-16, references, registration time, NAR
/// size, "ultimate", signatures, content address.
PathInfo readUnkeyedPathInfo(WireReader &in, const StoreDir &store, const StorePath &path);
/// The path, then the above.
PathInfo readPathInfo(WireReader &in, const StoreDir &store);
void writeUnkeyedPathInfo(WireWriter &out, const StoreDir &store, const PathInfo &info);
void writePathInfo(WireWriter &out, const StoreDir &store, const PathInfo &info);

std::vector<DerivedPath> readDerivedPaths(WireReader &in, const StoreDir &store, unsigned minor);

BuildMode readBuildMode(WireReader &in);

/// `name` is the derivation's, without ".drv".
BasicDerivation readBasicDerivation(WireReader &in, const StoreDir &store, std::string_view name);

void writeBuildResult(WireWriter &out, const BuildResult &result, unsigned minor);
/// Each result after the derived path it answers. There must be as many of the one as of the other.
void writeKeyedBuildResults(WireWriter &out, const StoreDir &store, const std::vector<DerivedPath> &paths,
                            const std::vector<BuildResult> &results, unsigned minor);

DrvOutput readDrvOutput(WireReader &in);
Realisation readRealisation(WireReader &in, const StoreDir &store, unsigned minor);

/// What follows "an error": type, level, name, message, position, traces; before 1.26 message and exit
/// status.
void writeError(WireWriter &out, std::string_view message, unsigned minor);

} // namespace firn
