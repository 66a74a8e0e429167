//! What `km --help` says behind the commands: which command an operation is, and how a command ends.

use std::fmt::Write;

/// Operations of the Key Manager, by WSO2's names, then those of ours; with the command that does each.
pub(super) const TABLE: [(&str, &str); 63] = [
    ("createApplication", "client create NAME"),
    ("updateApplication", "client update NAME KEY"),
    ("retrieveApplication", "client get NAME KEY"),
    ("deleteApplication", "client delete NAME KEY"),
    ("updateApplicationOwner", "client owner NAME KEY OWNER"),
    ("mapOAuthApplication", "client map NAME KEY"),
    ("deleteMappedApplication", "client unmap NAME KEY"),
    ("getNewApplicationAccessToken", "token new NAME KEY"),
    ("getTokenMetaData", "token introspect NAME TOKEN"),
    ("getAccessTokenByConsumerKey", "token show NAME KEY"),
    ("getActiveTokensByConsumerKey", "token active NAME KEY"),
    ("getNewApplicationConsumerSecret", "secret rotate NAME KEY"),
    ("generateNewApplicationConsumerSecret", "secret add NAME KEY"),
    ("retrieveApplicationConsumerSecrets", "secret list NAME KEY"),
    ("deleteApplicationConsumerSecret", "secret delete NAME KEY ID"),
    ("revokeToken", "token revoke NAME TOKEN"),
    ("revokeOneTimeToken", "token revoke-one-time NAME KEY TOKEN"),
    ("getKeyManagerConfiguration", "show NAME"),
    ("loadConfiguration", "load NAME --from FILE"),
    ("buildFromJSON", "client parse NAME --from FILE"),
    ("buildAccessTokenRequestFromJSON", "token parse NAME --from FILE"),
    ("buildAccessTokenRequestFromOAuthApp", "token request NAME KEY --from FILE"),
    ("registerNewResource", "resource register NAME API --uri URI"),
    ("getResourceByApiId", "resource get NAME API"),
    ("updateRegisteredResource", "resource update NAME API --uri URI"),
    ("deleteRegisteredResourceByAPIId", "resource delete NAME API"),
    ("registerScope", "scope register NAME KEY"),
    ("getScopeByName", "scope get NAME KEY"),
    ("getAllScopes", "scope list NAME"),
    ("isScopeExists", "scope exists NAME KEY"),
    ("updateScope", "scope update NAME KEY"),
    ("deleteScope", "scope delete NAME KEY"),
    ("validateScopes", "scope validate NAME KEY"),
    ("attachResourceScopes", "resource attach-scopes NAME API KEY"),
    ("updateResourceScopes", "resource replace-scopes NAME API KEY"),
    ("detachResourceScopes", "resource detach-scopes NAME API KEY"),
    ("getScopesForAPIS", "scope list NAME --api API"),
    ("getUserClaims", "user claims NAME USER"),
    ("canHandleToken", "token can-handle NAME TOKEN"),
    ("getType", "show NAME"),
    ("capabilities", "capabilities NAME"),
    ("listKeyManagers", "list"),
    ("deleteKeyManager", "delete NAME"),
    ("listPending", "pending NAME"),
    ("forgetPending", "forget NAME 1"),
    ("revoke", "revoke --kind KIND --value VALUE"),
    ("listRevocations", "revocations"),
    ("getRevocation", "revocation ID"),
    ("liftRevocation", "lift ID"),
    ("listAudit", "audit"),
    ("listUsage", "usage --tier TIER"),
    ("registerScopeEverywhere", "everywhere register-scope KEY"),
    ("getAllScopesEverywhere", "everywhere list-scopes"),
    ("getScopeByNameEverywhere", "everywhere get-scope KEY"),
    ("updateScopeEverywhere", "everywhere update-scope KEY"),
    ("deleteScopeEverywhere", "everywhere delete-scope KEY"),
    ("registerNewResourceEverywhere", "everywhere register-resource API --uri URI"),
    ("getResourceByApiIdEverywhere", "everywhere get-resource API"),
    ("updateRegisteredResourceEverywhere", "everywhere update-resource API --uri URI"),
    ("deleteRegisteredResourceByAPIIdEverywhere", "everywhere delete-resource API"),
    ("attachResourceScopesEverywhere", "everywhere attach-scopes API KEY"),
    ("updateResourceScopesEverywhere", "everywhere replace-scopes API KEY"),
    ("detachResourceScopesEverywhere", "everywhere detach-scopes API KEY"),
];

/// The text.
pub(super) fn text() -> String {
    let mut text = String::from("Operations:\n");
    for (operation, command) in TABLE {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "  {operation:<42} km {command}");
    }
    text.push_str(REST);
    text
}

const REST: &str = "  setTenantDomain                            none: one organization a process

Exit codes:
   0  done; `scope exists`: there is one
   1  `scope exists`: there is none
   3  the provider cannot do it (501)
  64  wrong arguments
  65  refused: something asked for is wrong, or in the way (400, 409, 412, 413, 415, 422)
  66  there is no such thing (404)
  69  the door cannot be reached, or does not answer in time
  70  a fault of ours, of the door or of the provider (5xx); a change for all that failed somewhere
  75  too many requests: try again later (429)
  77  not allowed (401, 403)
  78  an unreadable file or setting

Secrets come from files, standard input or TOLLGATE_MANAGEMENT_TOKEN; those that are made are printed once.
An ETag, for --if-match, is told on standard error. What stands without a flag and begins with a dash stands behind --,
but for ids of clients, secrets and revocations, and tokens.";
