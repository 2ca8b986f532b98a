#include "libstore/protocol/operations.hh"

#include <algorithm>
#include <iterator>

namespace firn {

namespace {

using namespace operations;

// Numbers never get a second meaning; what is missing here was removed before 1.18.
constexpr Operation table[] = {
    {1, "IsValidPath", isValidPath},
    {3, "HasSubstitutes", hasSubstitutes},
    {4, "QueryPathHash", queryPathHash},
    {5, "QueryReferences", queryReferences},
    {6, "QueryReferrers", queryReferrers},
    {7, "AddToStore", addToStore},
    {8, "AddTextToStore", addTextToStore},
    {9, "BuildPaths", operations::buildPaths},
    {10, "EnsurePath", ensurePath},
    {11, "AddTempRoot", addTempRoot},
    {12, "AddIndirectRoot", addIndirectRoot},
    {13, "SyncWithGC", syncWithGc},
    {14, "FindRoots", findRoots},
    {16, "ExportPath", exportPath},
    {18, "QueryDeriver", queryDeriver},
    {19, "SetOptions", setOptions},
    {20, "CollectGarbage", collectGarbage},
    {21, "QuerySubstitutablePathInfo", querySubstitutablePathInfo},
    {22, "QueryDerivationOutputs", queryDerivationOutputs},
    {23, "QueryAllValidPaths", queryAllValidPaths},
    {24, "QueryFailedPaths", queryFailedPaths},
    {25, "ClearFailedPaths", clearFailedPaths},
    {26, "QueryPathInfo", queryPathInfo},
    {27, "ImportPaths", importPaths},
    {28, "QueryDerivationOutputNames", queryDerivationOutputNames},
    {29, "QueryPathFromHashPart", queryPathFromHashPart},
    {30, "QuerySubstitutablePathInfos", querySubstitutablePathInfos},
    {31, "QueryValidPaths", queryValidPaths},
    {32, "QuerySubstitutablePaths", querySubstitutablePaths},
    {33, "QueryValidDerivers", queryValidDerivers},
    {34, "OptimiseStore", optimiseStore},
    {35, "VerifyStore", verifyStore},
    {36, "BuildDerivation", operations::buildDerivation},
    {37, "AddSignatures", addSignatures},
    {38, "NarFromPath", narFromPath},
    {39, "AddToStoreNar", addToStoreNar},
    {40, "QueryMissing", operations::queryMissing},
    {41, "QueryDerivationOutputMap", queryDerivationOutputMap},
    {42, "RegisterDrvOutput", registerDrvOutput},
    {43, "QueryRealisation", queryRealisation},
    {44, "AddMultipleToStore", addMultipleToStore},
    {45, "AddBuildLog", addBuildLog},
    {46, "BuildPathsWithResults", buildPathsWithResults},
    {47, "AddPermRoot", addPermRoot},
};

} // namespace

const Operation *findOperation(uint64_t number) {
    const Operation *found = std::ranges::lower_bound(table, number, {}, &Operation::number);
    return found != std::end(table) && found->number == number ? found : nullptr;
}

} // namespace firn
