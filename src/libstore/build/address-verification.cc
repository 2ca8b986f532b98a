#include "libstore/build/address-verification.hh"

#include <sys/stat.h>

#include "libstore/build/byte-patches.hh"
#include "libstore/build/helper-program.hh"
#include "libstore/build/output-address.hh"
#include "libstore/build/output-scan.hh"
#include "libstore/build/patched-nar.hh"
#include "libstore/store/hash-modulo.hh"
#include "libutil/error.hh"
#include "libutil/files.hh"
#include "libutil/interrupt.hh"
#include "libutil/positioned-io.hh"

namespace firn {

namespace {

std::vector<uint64_t> offsetsOf(const TouchedNode &touched) {
    std::vector<uint64_t> offsets;
    for (const PartHit &hit : touched.contents) {
        offsets.push_back(hit.offset);
    }
    return offsets;
}

/// Looks at the files that hold the path, and keeps what makes their normal forms. Tree, scan and jail must
/// outlive it.
class FormReader {
  public:
    FormReader(const OutputTree &tree, const ScanResult &scan, std::string_view selfPart, MachoJail &jail)
        : tree_(tree), selfPart_(selfPart), jail_(jail) {
        for (const TouchedNode &touched : scan.touched) {
            if (touched.everywhere || !touched.contents.empty()) {
                wanted_.emplace(touched.node, &touched);
            }
        }
    }

    void read(int dir) {
        visitFiles(dir, tree_, [this](int parent, uint32_t node) {
            if (auto found = wanted_.find(node); found != wanted_.end()) {
                throwIfInterrupted();
                look(openFileAt(parent, tree_.nodes[node].name).get(), *found->second);
            }
        });
    }

    std::vector<NodePatches> normal;
    bool allFinal = true;

  private:
    void look(int file, const TouchedNode &touched) {
        std::string head(std::min<uint64_t>(4, tree_.nodes[touched.node].size), '\0');
        readFullAt(file, 0, head.data(), head.size());
        if (!canBeMacho(head)) {
            return;
        }
        jail::Form final = ask(jail::Kind::finalForm, file, touched);
        if (final.patches.empty()) {
            return;
        }
        allFinal = allFinal && holds(file, final.patches);
        jail::Form form = ask(jail::Kind::normalForm, file, touched);
        normal.push_back({touched.node, asPatches(std::move(form.patches)), {}, {}, false});
    }

    jail::Form ask(jail::Kind kind, int file, const TouchedNode &touched) {
        jail::Request request;
        request.kind = kind;
        request.fileSize = tree_.nodes[touched.node].size;
        request.selfPart = selfPart_;
        request.selfReferences = offsetsOf(touched);
        return std::move(jail_.ask(request, file).form);
    }

    const OutputTree &tree_;
    std::string selfPart_;
    MachoJail &jail_;
    std::map<uint32_t, const TouchedNode *> wanted_;
};

class AddressVerification {
  public:
    AddressVerification(const AddressedTree &addressed, MachoJail &jail)
        : addressed_(addressed), jail_(jail), selfPart_(addressed.path.hashPart()) {
        LinkCounts links;
        tree_ = collectOutput(addressed.dir, addressed.entry,
                              {addressed.entry, "", static_cast<uid_t>(-1), addressed.ignoredAcls}, links);
        parts_.add(selfPart_);
        rewrites_ = {&parts_, {true}, {selfPart_}};
        references_.others = addressed.references;
        references_.self = references_.others.erase(addressed.path) > 0;
    }

    AddressRule run() {
        ScanOptions options;
        options.parts = &parts_;
        options.rewritable = rewrites_.rewritable;
        ScanResult scan = scanOutput(addressed_.dir, tree_, options);
        FormReader forms(tree_, scan, selfPart_, jail_);
        forms.read(addressed_.dir);
        if (!forms.normal.empty() && forms.allFinal &&
            fits(hash(forms.normal, normalFormMark).zerosThenOffsets())) {
            return AddressRule::normalForm;
        }
        std::vector<NodePatches> none;
        HashModulo byNix = hash(none, {});
        return fits(byNix.zeros()) || fits(byNix.zerosThenOffsets()) ? AddressRule::nix : AddressRule::none;
    }

  private:
    /// `changes` must outlive it.
    HashModulo hash(const std::vector<NodePatches> &changes, std::string_view mark) const {
        return {HashAlgorithm::sha256, selfPart_,
                [&](Sink &sink) { writePatchedNar(addressed_.dir, tree_, changes, rewrites_, sink); }, mark};
    }

    bool fits(const Hash &hash) const {
        return makeContentAddressedPath(addressed_.storeDir, addressed_.path.name(),
                                        {ContentMethod::nar, hash}, references_) == addressed_.path;
    }

    const AddressedTree &addressed_;
    MachoJail &jail_;
    std::string selfPart_;
    OutputTree tree_;
    HashPartSet parts_;
    Rewrites rewrites_;
    References references_;
};

} // namespace

AddressRule verifyAddress(const AddressedTree &tree, MachoJail &jail) {
    return AddressVerification(tree, jail).run();
}

void acceptNormalFormAddresses(LocalStore &store) {
    store.setAddressCheck([&store](const std::string &entry, const PathInfo &info) {
        MachoJail jail(machoJailProgram());
        AddressedTree tree{store.dir(), store.storeFd(), entry,
                           info.path,   info.references, store.settings().ignoredAcls};
        try {
            return verifyAddress(tree, jail) == AddressRule::normalForm;
        } catch (Error &error) {
            error.addContext(fmt::format("finding out whether '{}' follows from its contents",
                                         store.dir().print(info.path)));
            throw;
        }
    });
}

} // namespace firn
