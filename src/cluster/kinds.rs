//! Which path a kind is served at. Well-known kinds are a table; others, and those that moved between versions, are
//! asked of the server once.

use super::{Cluster, Error};
use crate::journal::Gvk;
use crate::words::{Problem, names};
use serde_json::Value;

/// A kind as the server serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub gvk: Gvk,
    pub plural: String,
    pub namespaced: bool,
}

/// kind, group, version, plural, namespaced
const KNOWN: [(&str, &str, &str, &str, bool); 25] = [
    ("PersistentVolume", "", "v1", "persistentvolumes", false),
    ("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", true),
    ("Pod", "", "v1", "pods", true),
    ("Namespace", "", "v1", "namespaces", false),
    ("Node", "", "v1", "nodes", false),
    ("ConfigMap", "", "v1", "configmaps", true),
    ("Secret", "", "v1", "secrets", true),
    ("Service", "", "v1", "services", true),
    ("ServiceAccount", "", "v1", "serviceaccounts", true),
    ("Event", "", "v1", "events", true),
    ("ReplicationController", "", "v1", "replicationcontrollers", true),
    ("ResourceQuota", "", "v1", "resourcequotas", true),
    ("LimitRange", "", "v1", "limitranges", true),
    ("Deployment", "apps", "v1", "deployments", true),
    ("StatefulSet", "apps", "v1", "statefulsets", true),
    ("DaemonSet", "apps", "v1", "daemonsets", true),
    ("ReplicaSet", "apps", "v1", "replicasets", true),
    ("Job", "batch", "v1", "jobs", true),
    ("StorageClass", "storage.k8s.io", "v1", "storageclasses", false),
    ("VolumeAttachment", "storage.k8s.io", "v1", "volumeattachments", false),
    ("Lease", "coordination.k8s.io", "v1", "leases", true),
    ("Role", "rbac.authorization.k8s.io", "v1", "roles", true),
    ("RoleBinding", "rbac.authorization.k8s.io", "v1", "rolebindings", true),
    ("ClusterRole", "rbac.authorization.k8s.io", "v1", "clusterroles", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io", "v1", "clusterrolebindings", false),
];

/// kind, group, plural, namespaced: kinds whose version is not the same everywhere, and those of others that we look at.
const ELSEWHERE: [(&str, &str, &str, bool); 12] = [
    ("CronJob", "batch", "cronjobs", true),
    ("HorizontalPodAutoscaler", "autoscaling", "horizontalpodautoscalers", true),
    ("PodDisruptionBudget", "policy", "poddisruptionbudgets", true),
    ("Ingress", "networking.k8s.io", "ingresses", true),
    ("NetworkPolicy", "networking.k8s.io", "networkpolicies", true),
    ("CSIDriver", "storage.k8s.io", "csidrivers", false),
    ("CSINode", "storage.k8s.io", "csinodes", false),
    ("VolumeSnapshot", "snapshot.storage.k8s.io", "volumesnapshots", true),
    ("VolumeSnapshotClass", "snapshot.storage.k8s.io", "volumesnapshotclasses", false),
    ("VolumeSnapshotContent", "snapshot.storage.k8s.io", "volumesnapshotcontents", false),
    ("ScaledObject", "keda.sh", "scaledobjects", true),
    ("Application", "argoproj.io", "applications", true),
];

/// Group and plural of a kind as scripts write it, as far as they are known without asking a server.
pub fn named(text: &str) -> Option<(&'static str, &'static str)> {
    let (api, kind) = text.rsplit_once('/').map_or((None, text), |(api, kind)| (Some(api), kind));
    let (kind, group) = match (api, kind.split_once('.')) {
        (Some(api), _) => (kind, Some(api.split_once('/').map_or("", |(group, _)| group))),
        (None, Some((kind, group))) => (kind, Some(group)),
        (None, None) => (kind, None),
    };
    let all = KNOWN.iter().map(|(kind, group, _, plural, _)| (kind, group, plural));
    let all = all.chain(ELSEWHERE.iter().map(|(kind, group, plural, _)| (kind, group, plural)));
    let mut fit = all.filter(|(known, its, _)| **known == kind && group.is_none_or(|wanted| wanted == **its));
    fit.next().map(|(_, group, plural)| (*group, *plural))
}

/// Whether what is served under this plural lies in namespaces; `None` for what no table has.
pub fn is_namespaced(group: &str, plural: &str) -> Option<bool> {
    let all = KNOWN.iter().map(|(_, group, _, plural, namespaced)| (group, plural, namespaced));
    let mut all = all.chain(ELSEWHERE.iter().map(|(_, group, plural, namespaced)| (group, plural, namespaced)));
    all.find(|(its, known, _)| **its == group && **known == plural).map(|(.., namespaced)| *namespaced)
}

/// The table's entry for a kind that is served alike everywhere.
///
/// # Panics
/// If the kind is not in the table: callers name kinds of the table only.
pub fn known(kind: &str) -> Resource {
    find_known(kind).expect("callers name kinds of the table")
}

/// True if the table's entry is this very group and version.
pub(super) fn is_known(gvk: &Gvk) -> bool {
    find_known(&gvk.kind).is_some_and(|resource| resource.gvk == *gvk)
}

fn find_known(kind: &str) -> Option<Resource> {
    KNOWN.iter().find(|entry| entry.0 == kind).map(|(kind, group, version, plural, namespaced)| Resource {
        gvk: Gvk { group: (*group).into(), version: (*version).into(), kind: (*kind).into() },
        plural: (*plural).into(),
        namespaced: *namespaced,
    })
}

impl Resource {
    /// `/api/v1/namespaces/shop/pods/web-0`; an empty `name` is the collection, an empty `namespace` all of them.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let mut path = if self.gvk.group.is_empty() {
            format!("/api/{}", self.gvk.version)
        } else {
            format!("/apis/{}/{}", self.gvk.group, self.gvk.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path += &format!("/namespaces/{namespace}");
        }
        path += &format!("/{}", self.plural);
        if !name.is_empty() {
            path += &format!("/{name}");
        }
        path
    }
}

impl Cluster {
    /// Finds how `Deployment`, `Kustomization.kustomize.toolkit.fluxcd.io` or `apps/v1/Deployment` is served.
    ///
    /// # Errors
    /// If the server does not serve it, or cannot be asked.
    pub async fn resource(&self, text: &str) -> Result<Resource, Problem> {
        if let Some(resource) = self.find_resource(text).await? {
            return Ok(resource);
        }
        let mut problem = Problem::usage(format!("the server does not serve the kind `{}`", names::plain(text)));
        if let Some(word) = names::did_you_mean(text, KNOWN.iter().map(|entry| entry.0)) {
            problem = problem.hint(format!("did you mean `{word}`?"));
        }
        Err(problem
            .hint("write a kind as kubectl api-resources prints it, with its group if it is ambiguous: Kind.group"))
    }

    /// Like [`Cluster::resource`], but `None` if the kind is not served.
    pub async fn find_resource(&self, text: &str) -> Result<Option<Resource>, Problem> {
        if let Some(resource) = find_known(text) {
            return Ok(Some(resource));
        }
        if let Some(found) = self.cached_resource(text) {
            return Ok(found);
        }
        let found = self.discover(text).await.map_err(|e| e.problem("ask the server for its kinds", None))?;
        self.cache_resource(text, found.clone());
        Ok(found)
    }

    async fn discover(&self, text: &str) -> Result<Option<Resource>, Error> {
        let (group_version, kind) = match text.rsplit_once('/') {
            Some((gv, kind)) => (Some(gv), kind),
            None => (None, text),
        };
        let (kind, group) = match kind.split_once('.') {
            Some((kind, group)) => (kind, Some(group)),
            None => (kind, None),
        };
        let mut candidates = Vec::new();
        if let Some(gv) = group_version {
            candidates.push(gv.to_owned());
        } else {
            if group.is_none() {
                candidates.push("v1".to_owned());
            }
            let groups = self.read("/apis", &[]).await?;
            let groups = groups["groups"].as_array().into_iter().flatten();
            let groups: Vec<&Value> =
                groups.filter(|entry| group.is_none_or(|wanted| entry["name"] == wanted)).collect();
            let mut add = |version: &Value| match version["groupVersion"].as_str() {
                Some(version) if !candidates.iter().any(|known| known == version) => {
                    candidates.push(version.to_owned())
                }
                _ => {}
            };
            groups.iter().for_each(|entry| add(&entry["preferredVersion"]));
            // A kind may be served in another version only: CronJob is in batch/v1beta1 up to Kubernetes 1.20.
            groups.iter().flat_map(|entry| entry["versions"].as_array()).flatten().for_each(add);
        }
        for gv in candidates {
            let path = if gv.contains('/') { format!("/apis/{gv}") } else { format!("/api/{gv}") };
            let served = match self.read(&path, &[]).await {
                Ok(served) => served,
                // An aggregated group whose server is away must not hide the others; asked for by name, it is an error.
                Err(_) if group.is_none() && group_version.is_none() => continue,
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e),
            };
            let entry = served["resources"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|r| r["kind"] == kind && r["name"].as_str().is_some_and(|name| !name.contains('/')));
            if let Some(entry) = entry {
                let (group, version) = gv.split_once('/').unwrap_or(("", &gv));
                return Ok(Some(Resource {
                    gvk: Gvk { group: group.into(), version: version.into(), kind: kind.into() },
                    plural: entry["name"].as_str().unwrap_or_default().to_owned(),
                    namespaced: entry["namespaced"] == Value::Bool(true),
                }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_the_servers() {
        assert_eq!(known("PersistentVolume").path("", "pv-1"), "/api/v1/persistentvolumes/pv-1");
        assert_eq!(known("Deployment").path("shop", "web"), "/apis/apps/v1/namespaces/shop/deployments/web");
        assert_eq!(known("Pod").path("", ""), "/api/v1/pods");
    }

    #[test]
    fn kinds_are_known_without_a_server() {
        for (text, want) in [
            ("Deployment", Some(("apps", "deployments"))),
            ("Deployment.apps", Some(("apps", "deployments"))),
            ("apps/v1/Deployment", Some(("apps", "deployments"))),
            ("v1/ConfigMap", Some(("", "configmaps"))),
            ("CronJob", Some(("batch", "cronjobs"))),
            ("batch/v1beta1/CronJob", Some(("batch", "cronjobs"))),
            ("Deployment.example.org", None),
            ("Kustomization.kustomize.toolkit.fluxcd.io", None),
        ] {
            assert_eq!(named(text), want, "{text}");
        }
        assert_eq!(is_namespaced("", "persistentvolumes"), Some(false));
        assert_eq!(is_namespaced("batch", "cronjobs"), Some(true));
        assert_eq!(is_namespaced("apps", "pods"), None);
    }
}
