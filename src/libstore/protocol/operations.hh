#pragma once

#include <cstdint>

namespace firn {

class Connection;

/// An operation of the worker protocol. Its handler reads the rest of the request, works, and writes the
/// result.
struct Operation {
    uint64_t number;
    const char *name;
    void (*handler)(Connection &);
};

/// nullptr for a number that is not among them.
const Operation *findOperation(uint64_t number);

namespace operations {

// query-operations.cc
void isValidPath(Connection &);
void hasSubstitutes(Connection &);
void queryPathHash(Connection &);
void queryReferences(Connection &);
void queryReferrers(Connection &);
void queryDeriver(Connection &);
void querySubstitutablePathInfo(Connection &);
void queryDerivationOutputs(Connection &);
void queryAllValidPaths(Connection &);
void queryPathInfo(Connection &);
void queryDerivationOutputNames(Connection &);
void queryPathFromHashPart(Connection &);
void querySubstitutablePathInfos(Connection &);
void queryValidPaths(Connection &);
void querySubstitutablePaths(Connection &);
void queryValidDerivers(Connection &);
void queryDerivationOutputMap(Connection &);
void queryRealisation(Connection &);

// content-operations.cc
void addToStore(Connection &);
void addTextToStore(Connection &);
void addToStoreNar(Connection &);
void addMultipleToStore(Connection &);
void addSignatures(Connection &);
void addBuildLog(Connection &);
void registerDrvOutput(Connection &);
void importPaths(Connection &);
void exportPath(Connection &);
void narFromPath(Connection &);

// build-operations.cc
void buildPaths(Connection &);
void buildPathsWithResults(Connection &);
void buildDerivation(Connection &);
void ensurePath(Connection &);
void queryMissing(Connection &);

// maintenance-operations.cc
void setOptions(Connection &);
void addTempRoot(Connection &);
void addIndirectRoot(Connection &);
void addPermRoot(Connection &);
void syncWithGc(Connection &);
void findRoots(Connection &);
void collectGarbage(Connection &);
void optimiseStore(Connection &);
void verifyStore(Connection &);
void queryFailedPaths(Connection &);
void clearFailedPaths(Connection &);

} // namespace operations
} // namespace firn
