#include "libstore/linux/namespace-rules.hh"

#include <cerrno>

#include <gtest/gtest.h>

namespace firn {
namespace {

TEST(NamespaceRules, EachRuleOfAHostIsNamedWithItsSwitch) {
    NamespaceRules rules;
    rules.unprivilegedClone = "0";
    EXPECT_NE(explainForbiddenNamespaces(rules, EPERM).find("unprivileged_userns_clone=1"),
              std::string::npos);
    rules = {};
    rules.maxUserNamespaces = "0";
    EXPECT_NE(explainForbiddenNamespaces(rules, ENOSPC).find("max_user_namespaces"), std::string::npos);
    rules = {};
    rules.apparmorRestriction = "1";
    EXPECT_NE(explainForbiddenNamespaces(rules, EACCES).find("AppArmor"), std::string::npos);
}

TEST(NamespaceRules, ThoseForOrdinaryUsersDoNotExplainRootsFailure) {
    NamespaceRules rules{
        .unprivilegedClone = "0", .maxUserNamespaces = "100", .apparmorRestriction = "1", .root = true};
    std::string text = explainForbiddenNamespaces(rules, EPERM);
    EXPECT_EQ(text.find("unprivileged"), std::string::npos) << text;
    EXPECT_EQ(explainForbiddenNamespaces(rules, EIO), "");
}

} // namespace
} // namespace firn
