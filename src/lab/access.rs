//! Who may do what: roles and bindings, and the reviews that answer questions about them.
//!
//! Not who somebody is: tokens are the server's. Called by `handle` before everything else. What must stay true: what
//! no rule allows is refused.

use super::rules::field::{entries, is_empty, set, sub};
use super::status::{Cause, Status};
use super::store::{State, list_of, text};
use serde_json::{Value, json};
use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

/// A rule that allows, or would.
struct Grant {
    rule: Value,
    /// `RBAC: allowed by …`.
    reason: String,
}

const MASTERS: &str = "system:masters";
const DISCOVERY: [&str; 11] = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
];
const HEALTH: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];

impl User {
    pub fn new(name: impl Into<String>, groups: &[&str]) -> User {
        User { name: name.into(), groups: groups.iter().map(|one| (*one).to_owned()).collect() }
    }

    /// The one whom the kubeconfig names.
    pub fn admin() -> User {
        User::new("system:admin", &[MASTERS, "system:authenticated"])
    }

    /// A part of the lab itself.
    pub fn system(name: &str) -> User {
        User::new(name, &[MASTERS])
    }

    pub fn anonymous() -> User {
        User::new("system:anonymous", &["system:unauthenticated"])
    }

    pub fn account(namespace: &str, name: &str) -> User {
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let groups = ["system:serviceaccounts", &of_namespace, "system:authenticated"];
        User::new(format!("system:serviceaccount:{namespace}:{name}"), &groups)
    }

    /// Whom an administrator plays.
    pub fn named<'a>(name: &str, groups: impl Iterator<Item = &'a str>) -> User {
        let mut groups: Vec<&str> = groups.collect();
        let is_known = name != "system:anonymous";
        groups.push(if is_known { "system:authenticated" } else { "system:unauthenticated" });
        User::new(name, &groups)
    }

    /// Who may do everything.
    pub fn is_master(&self) -> bool {
        self.groups.iter().any(|one| one == MASTERS)
    }
}

/// Whether the user may do this. A namespace or a name that is not meant is empty.
#[expect(clippy::too_many_arguments, reason = "a request has that many parts")]
pub fn may(
    state: &State,
    user: &User,
    verb: &str,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
    name: &str,
) -> bool {
    let ask = json!({
        "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
        "name": name,
    });
    allowed(state, user, &ask).is_some()
}

/// Whether the user may do this to a path that is no object.
pub fn may_path(state: &State, user: &User, verb: &str, path: &str) -> bool {
    allowed_path(state, user, verb, path).is_some()
}

/// Refuses what the user may not do.
///
/// # Errors
/// 403.
pub fn check(
    state: &State,
    user: &User,
    verb: &str,
    kind: &super::kind::Kind,
    sub: &str,
    namespace: &str,
    name: &str,
) -> Result<(), Status> {
    if may(state, user, verb, kind.group, kind.plural, sub, namespace, name) {
        return Ok(());
    }
    Err(refusal(user, verb, kind.group, kind.plural, sub, namespace, name))
}

/// 403 as the real server words it.
pub fn refusal(
    user: &User,
    verb: &str,
    group: &str,
    resource: &str,
    subresource: &str,
    namespace: &str,
    name: &str,
) -> Status {
    let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let named = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
    let whole = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let scope = match namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", resource)] {
        if !value.is_empty() {
            set(&mut details, key, value);
        }
    }
    let message = format!(
        "{full}{named} is forbidden: User \"{}\" cannot {verb} resource \"{whole}\" in API group \"{group}\" {scope}",
        user.name
    );
    Status::new(403, "Forbidden", message).details(details)
}

/// The same for a path.
pub fn refusal_of_path(user: &User, verb: &str, path: &str) -> Status {
    let message = format!("forbidden: User \"{}\" cannot {verb} path \"{path}\"", user.name);
    Status::new(403, "Forbidden", message).details(json!({}))
}

/// The reason why it is allowed, which is empty for those who may do everything.
fn allowed(state: &State, user: &User, ask: &Value) -> Option<String> {
    if user.is_master() {
        return Some(String::new());
    }
    let resource = match text(&ask["subresource"]) {
        "" => text(&ask["resource"]).to_owned(),
        subresource => format!("{}/{subresource}", text(&ask["resource"])),
    };
    let has = |list: &Value, wanted: &str| list_of(list).iter().any(|one| one == "*" || one == wanted);
    let fits = |grant: &Grant| {
        let rule = &grant.rule;
        let any = format!("*/{}", text(&ask["subresource"]));
        has(&rule["verbs"], text(&ask["verb"]))
            && has(&rule["apiGroups"], text(&ask["group"]))
            && (has(&rule["resources"], &resource)
                || (!text(&ask["subresource"]).is_empty() && list_of(&rule["resources"]).contains(&any.into())))
            && (is_empty(&rule["resourceNames"]) || list_of(&rule["resourceNames"]).contains(&ask["name"]))
    };
    grants(state, user, text(&ask["namespace"])).into_iter().find(fits).map(|grant| grant.reason)
}

fn allowed_path(state: &State, user: &User, verb: &str, path: &str) -> Option<String> {
    if user.is_master() {
        return Some(String::new());
    }
    let matches = |pattern: &Value| match text(pattern).strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == text(pattern),
    };
    let fits = |grant: &Grant| {
        list_of(&grant.rule["verbs"]).iter().any(|one| one == "*" || one == verb)
            && list_of(&grant.rule["nonResourceURLs"]).iter().any(matches)
    };
    grants(state, user, "").into_iter().find(fits).map(|grant| grant.reason)
}

/// Every rule that holds for the user: cluster-wide, and in the namespace if one is meant.
fn grants(state: &State, user: &User, namespace: &str) -> Vec<Grant> {
    let mut grants = built_in(user);
    for (key, binding) in state.list("ClusterRoleBinding", "") {
        let Some(subject) = subject_of(binding, user, "") else { continue };
        let role = state.get("ClusterRole", "", text(&binding["roleRef"]["name"]));
        let by = format!("ClusterRoleBinding \"{}\"", key.name);
        add(&mut grants, role, &by, "ClusterRole", binding, &subject);
    }
    if namespace.is_empty() {
        return grants;
    }
    for (key, binding) in state.list("RoleBinding", namespace) {
        let Some(subject) = subject_of(binding, user, namespace) else { continue };
        let name = text(&binding["roleRef"]["name"]);
        let (what, role) = match text(&binding["roleRef"]["kind"]) {
            "ClusterRole" => ("ClusterRole", state.get("ClusterRole", "", name)),
            _ => ("Role", state.get("Role", namespace, name)),
        };
        let by = format!("RoleBinding \"{}/{namespace}\"", key.name);
        add(&mut grants, role, &by, what, binding, &subject);
    }
    grants
}

fn add(grants: &mut Vec<Grant>, role: Option<&Arc<Value>>, by: &str, what: &str, binding: &Value, subject: &str) {
    let Some(role) = role else { return };
    let name = text(&binding["roleRef"]["name"]);
    let reason = format!("RBAC: allowed by {by} of {what} \"{name}\" to {subject}");
    for rule in list_of(&role["rules"]) {
        grants.push(Grant { rule: rule.clone(), reason: reason.clone() });
    }
}

/// What every cluster grants before anybody made a role.
fn built_in(user: &User) -> Vec<Grant> {
    let grant = |role: &str, group: &str, rule: Value| Grant {
        rule,
        reason: format!(
            "RBAC: allowed by ClusterRoleBinding \"{role}\" of ClusterRole \"{role}\" to Group \"{group}\""
        ),
    };
    let is_in = |group: &str| user.groups.iter().any(|one| one == group);
    let mut grants = Vec::new();
    if is_in("system:authenticated") {
        let reviews = json!({
            "verbs": ["create"], "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        });
        grants.push(grant("system:basic-user", "system:authenticated", reviews));
        let paths = json!({"verbs": ["get"], "nonResourceURLs": DISCOVERY});
        grants.push(grant("system:discovery", "system:authenticated", paths));
    }
    for group in ["system:authenticated", "system:unauthenticated"] {
        if is_in(group) {
            let paths = json!({"verbs": ["get"], "nonResourceURLs": HEALTH});
            grants.push(grant("system:public-info-viewer", group, paths));
        }
    }
    grants
}

/// The subject of the binding that is this user, as reasons name it.
fn subject_of(binding: &Value, user: &User, namespace: &str) -> Option<String> {
    for subject in list_of(&binding["subjects"]) {
        let name = text(&subject["name"]);
        let found = match text(&subject["kind"]) {
            "User" => user.name == name,
            "Group" => user.groups.iter().any(|one| one == name),
            "ServiceAccount" => {
                let home = match text(&subject["namespace"]) {
                    "" => namespace,
                    home => home,
                };
                if user.name == format!("system:serviceaccount:{home}:{name}") {
                    return Some(format!("ServiceAccount \"{name}/{home}\""));
                }
                false
            }
            _ => false,
        };
        if found {
            return Some(format!("{} \"{name}\"", text(&subject["kind"])));
        }
    }
    None
}

/// The plurals of the reviews that `review` answers, with their kinds and whether they live in a namespace.
/// The group of the reviews.
pub const REVIEW_GROUP: &str = "authorization.k8s.io";

pub const REVIEWS: [(&str, &str, bool); 4] = [
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview", false),
    ("selfsubjectrulesreviews", "SelfSubjectRulesReview", false),
    ("subjectaccessreviews", "SubjectAccessReview", false),
    ("localsubjectaccessreviews", "LocalSubjectAccessReview", true),
];

/// Answers a POST of a review: 201 with the answer in `status`. Nothing is stored.
pub fn review(state: &State, user: &User, kind: &str, namespace: &str, body: &Value) -> Result<Value, Status> {
    let mut answer = json!({"kind": kind, "apiVersion": "authorization.k8s.io/v1"});
    let mut metadata = body["metadata"].clone();
    if !metadata.is_object() {
        metadata = json!({});
    }
    if kind == "LocalSubjectAccessReview" {
        set(&mut metadata, "namespace", namespace);
    }
    set(&mut metadata, "creationTimestamp", Value::Null);
    answer["metadata"] = metadata;
    answer["spec"] = if body["spec"].is_object() { body["spec"].clone() } else { json!({}) };
    if kind == "SelfSubjectRulesReview" {
        let wanted = text(&body["spec"]["namespace"]);
        if wanted.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        answer["spec"] = json!({});
        answer["status"] = rules_of(state, user, wanted);
        return Ok(answer);
    }
    let mut causes = review_causes(kind, namespace, &answer["spec"]);
    if let Some(name) = body["metadata"]["name"].as_str() {
        let go = format!("v1.ObjectMeta{{Name:\"{name}\"}}");
        causes.push(super::rules::field::invalid_go("metadata", &go, "must be empty"));
    }
    if !causes.is_empty() {
        return Err(invalid(&causes));
    }
    let spec = &answer["spec"];
    let asked = match kind {
        "SelfSubjectAccessReview" => user.clone(),
        _ => User {
            name: text(&spec["user"]).to_owned(),
            groups: list_of(&spec["groups"]).iter().map(|one| text(one).to_owned()).collect(),
        },
    };
    let path = &spec["nonResourceAttributes"];
    let reason = match path.is_object() {
        true => allowed_path(state, &asked, text(&path["verb"]), text(&path["path"])),
        false => allowed(state, &asked, &spec["resourceAttributes"]),
    };
    answer["status"] = json!({"allowed": reason.is_some()});
    if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
        answer["status"]["reason"] = reason.into();
    }
    Ok(answer)
}

fn review_causes(kind: &str, namespace: &str, spec: &Value) -> Vec<Cause> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let go = || {
        format!(
            "authorization.NonResourceAttributes{{Path:\"{}\", Verb:\"{}\"}}",
            text(&path["path"]),
            text(&path["verb"])
        )
    };
    let mut causes = Vec::new();
    if resource.is_object() && path.is_object() {
        causes.push(super::rules::field::invalid_go(
            "spec.nonResourceAttributes",
            &go(),
            "cannot be specified in combination with resourceAttributes",
        ));
    } else if !resource.is_object() && !path.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        causes.push(Cause::invalid("spec.resourceAttributes", &"null".into(), why));
    }
    if kind != "SelfSubjectAccessReview" && is_empty(&spec["user"]) && is_empty(&spec["groups"]) {
        let why = "at least one of user or group must be specified";
        causes.push(Cause::invalid("spec.user", &"".into(), why));
    }
    if kind == "LocalSubjectAccessReview" {
        let wanted = text(&resource["namespace"]);
        if resource.is_object() && wanted != namespace {
            let why = "must match metadata.namespace";
            causes.push(Cause::invalid("spec.resourceAttributes.namespace", &wanted.into(), why));
        }
        if path.is_object() {
            let why = "disallowed on this kind of request";
            causes.push(super::rules::field::invalid_go("spec.nonResourceAttributes", &go(), why));
        }
    }
    causes
}

/// The real server leaves the kind out here.
fn invalid(causes: &[Cause]) -> Status {
    let none = super::kind::Kind { group: "authorization.k8s.io", kind: "", ..*super::kind::kind("ConfigMap") };
    Status::invalid(&none, "", causes)
}

fn rules_of(state: &State, user: &User, namespace: &str) -> Value {
    let [mut resources, mut paths] = [const { Vec::<Value>::new() }; 2];
    if user.is_master() {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    for grant in grants(state, user, namespace) {
        let is_path = !is_empty(&grant.rule["nonResourceURLs"]);
        let mut rule = json!({});
        for (key, value) in entries(&grant.rule) {
            set(&mut rule, key, value.clone());
        }
        let list = if is_path { &mut paths } else { &mut resources };
        if !list.contains(&rule) {
            list.push(rule);
        }
    }
    let mut status = json!({});
    set(&mut status, "resourceRules", resources);
    set(&mut status, "nonResourceRules", paths);
    sub(&mut status, "incomplete");
    status["incomplete"] = false.into();
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::store::Key;

    fn world() -> State {
        let mut state = State::new(1, jiff::Timestamp::UNIX_EPOCH);
        let mut put = |kind, namespace: &str, name: &str, object| {
            state.put(Key::new(kind, namespace, name), object, "me");
        };
        put(
            "ClusterRole",
            "",
            "pods",
            json!({"rules": [{
                "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"],
            }]}),
        );
        put(
            "ClusterRole",
            "",
            "sets",
            json!({"rules": [
                {"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/scale"]},
                {"verbs": ["get"], "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"]},
                {"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]},
            ]}),
        );
        put(
            "RoleBinding",
            "shop",
            "read",
            json!({
                "roleRef": {"kind": "ClusterRole", "name": "pods"}, "subjects": [{"kind": "User", "name": "bob"}],
            }),
        );
        put(
            "ClusterRoleBinding",
            "",
            "sets",
            json!({
                "roleRef": {"kind": "ClusterRole", "name": "sets"},
                "subjects": [{"kind": "Group", "name": "ops"}, {"kind": "ServiceAccount", "name": "sa", "namespace": "shop"}],
            }),
        );
        state
    }

    #[test]
    fn roles_hold_where_they_are_bound() {
        let state = world();
        let bob = User::new("bob", &["system:authenticated"]);
        let ops = User::new("eve", &["ops"]);
        let account = User::new("system:serviceaccount:shop:sa", &[]);
        let root = User::new("root", &[MASTERS]);
        for (user, verb, group, resource, namespace, name, expected) in [
            (&bob, "get", "", "pods", "shop", "p", true),
            (&bob, "get", "", "pods/log", "shop", "p", true),
            (&bob, "get", "", "pods/exec", "shop", "p", false),
            (&bob, "delete", "", "pods", "shop", "p", false),
            (&bob, "list", "", "pods", "other", "", false),
            (&bob, "list", "", "pods", "", "", false),
            (&bob, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", "", true),
            (&ops, "patch", "apps", "statefulsets/scale", "any", "db", true),
            (&ops, "patch", "apps", "statefulsets", "any", "db", false),
            (&ops, "get", "", "configmaps", "any", "one", true),
            (&ops, "get", "", "configmaps", "any", "two", false),
            (&ops, "list", "", "configmaps", "any", "", false),
            (&account, "get", "", "configmaps", "any", "one", true),
            (&root, "delete", "", "nodes", "", "n", true),
        ] {
            let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let found = may(&state, user, verb, group, resource, sub, namespace, name);
            assert_eq!(found, expected, "{} {verb} {resource} {sub} {namespace} {name}", user.name);
        }
        assert!(may_path(&state, &ops, "get", "/metrics/x") && !may_path(&state, &ops, "get", "/healthz"));
        assert!(may_path(&state, &bob, "get", "/healthz") && may_path(&state, &bob, "get", "/api/v1"));
    }

    #[test]
    fn refusals_are_worded_as_the_real_ones() {
        let limited = User::new("limited", &[]);
        let text =
            |sub, namespace, name, verb, resource| refusal(&limited, verb, "", resource, sub, namespace, name).message;
        assert_eq!(
            text("log", "e1", "x", "get", "pods"),
            "pods \"x\" is forbidden: User \"limited\" cannot get resource \"pods/log\" in API group \"\" in the \
             namespace \"e1\""
        );
        assert_eq!(
            text("", "", "", "list", "persistentvolumes"),
            "persistentvolumes is forbidden: User \"limited\" cannot list resource \"persistentvolumes\" in API group \
             \"\" at the cluster scope"
        );
    }

    #[test]
    fn reviews_say_who_may_do_what() {
        let state = world();
        let bob = User::new("bob", &[]);
        let ask = |kind: &str, spec: Value| review(&state, &bob, kind, "shop", &json!({"spec": spec}));
        let pods = json!({"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "shop"}});
        let answer = ask("SelfSubjectAccessReview", pods.clone()).unwrap();
        assert_eq!(
            answer["status"],
            json!({"allowed": true, "reason": "RBAC: allowed by RoleBinding \"read/shop\" of ClusterRole \"pods\" to \
                                               User \"bob\""})
        );
        let mut other = pods.clone();
        other["user"] = "carol".into();
        assert_eq!(ask("SubjectAccessReview", other.clone()).unwrap()["status"], json!({"allowed": false}));
        other["groups"] = json!([MASTERS]);
        assert_eq!(ask("LocalSubjectAccessReview", other).unwrap()["status"], json!({"allowed": true}));
        let none = ask("SubjectAccessReview", json!({})).unwrap_err();
        assert_eq!(
            none.message,
            ".authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: \"null\": exactly one of \
             nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one \
             of user or group must be specified]"
        );
        assert_eq!(ask("SelfSubjectRulesReview", json!({})).unwrap_err().message, "no namespace on request");
        let rules = ask("SelfSubjectRulesReview", json!({"namespace": "shop"})).unwrap();
        assert_eq!(rules["status"]["resourceRules"][0]["resources"], json!(["pods", "pods/log"]));
    }
}
